// The dashboard model of Grafana's foundation SDK, as JSON has it, with the options of the panel
// plugins in use in place of `any`.
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as statetimeline from '@grafana/grafana-foundation-sdk/statetimeline';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import * as units from '@grafana/grafana-foundation-sdk/units';

/** Enums as their values: JSON has those. */
type Json<T> = T extends string
  ? `${T}`
  : T extends (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [Key in keyof T]: Json<T[Key]> }
      : T;

/** Fields that the plugin fills in may be absent; those that are there must be right. */
type WithDefaults<T> = T extends (infer Item)[]
  ? Item[]
  : T extends object
    ? { [Key in keyof T]?: WithDefaults<T[Key]> }
    : T;

type Unit = (typeof units)[keyof typeof units];

type Target = Json<Omit<prometheus.Dataquery, '_implementsDataqueryVariant'>> & {
  refId: string;
  datasource: { type: 'prometheus'; uid: '${datasource}' };
  legendFormat: string;
};

type Place = Required<Omit<dashboard.GridPos, 'static'>>;

type Panel<Type, Options, Custom> = Json<
  Omit<dashboard.Panel, 'type' | 'targets' | 'options' | 'fieldConfig' | 'datasource' | 'gridPos'>
> & {
  type: Type;
  id: number;
  title: string;
  description: string;
  gridPos: Place;
  datasource: { type: 'prometheus'; uid: '${datasource}' };
  targets: Target[];
  options: WithDefaults<Json<Options>>;
  fieldConfig: Json<Omit<dashboard.FieldConfigSource, 'defaults'>> & {
    defaults: Json<Omit<dashboard.FieldConfig, 'custom' | 'unit'>> & {
      unit: Unit;
      custom?: WithDefaults<Json<Custom>>;
    };
  };
};

type Panels =
  | Panel<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Panel<'stat', stat.Options, never>
  | Panel<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>
  | Panel<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Panel<'table', table.Options, table.FieldConfig>
  | Json<dashboard.RowPanel>;

export type Model = Json<Omit<dashboard.Dashboard, 'panels' | 'annotations'>> & {
  uid: string;
  title: string;
  panels: Panels[];
  annotations: Json<dashboard.AnnotationContainer>;
};

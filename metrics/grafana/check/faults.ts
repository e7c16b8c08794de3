// Faulty dashboards: the compiler fails unless it finds an error at each.
import { Model } from './model';

const datasource = { type: 'prometheus', uid: '${datasource}' } as const;
const target = { refId: 'A', datasource, expr: 'up', legendFormat: '' };
const at = { id: 1, title: 'T', description: 'D', datasource, gridPos: { h: 8, w: 8, x: 0, y: 0 } };
const fieldConfig = { defaults: { unit: 's' as const }, overrides: [] };
const sound = { type: 'timeseries' as const, ...at, fieldConfig, targets: [target], options: {} };
const around = { uid: 'u', title: 'T', schemaVersion: 39, templating: { list: [] }, annotations: { list: [] } };

export const good: Model = { ...around, panels: [sound] };

export const faults: Model[] = [
  // @ts-expect-error: no schema version.
  { uid: 'u', title: 'T', templating: {}, annotations: {}, panels: [] },
  // @ts-expect-error: an unknown field of the dashboard.
  { ...around, panels: [], pannels: [] },
  // @ts-expect-error: no plugin of that name.
  { ...around, panels: [{ ...sound, type: 'time-series' }] },
  // @ts-expect-error: no such unit.
  { ...around, panels: [{ ...sound, fieldConfig: { defaults: { unit: 'secs' }, overrides: [] } }] },
  // @ts-expect-error: a target without an expression.
  { ...around, panels: [{ ...sound, targets: [{ refId: 'A', datasource, legendFormat: '' }] }] },
  // @ts-expect-error: an unknown field of a target.
  { ...around, panels: [{ ...sound, targets: [{ ...target, query: 'up' }] }] },
  // @ts-expect-error: a value that the option does not have.
  { ...around, panels: [{ ...sound, options: { tooltip: { mode: 'all' } } }] },
  // @ts-expect-error: an option of another plugin.
  { ...around, panels: [{ ...sound, options: { graphMode: 'none' } }] },
  // @ts-expect-error: a stacking mode that does not exist.
  { ...around, panels: [{ ...sound, fieldConfig: { ...fieldConfig, defaults: { unit: 's', custom: { stacking: { mode: 'on' } } } } }] },
  // @ts-expect-error: a panel without a place.
  { ...around, panels: [{ ...sound, gridPos: { h: 8, w: 8 } }] },
  // @ts-expect-error: a text in place of a number.
  { ...around, panels: [{ ...sound, id: '1' }] },
];

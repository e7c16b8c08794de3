//! The drawing: two panels, of the median latency and of the 99th percentile, against throughput.
//! Both axes are logarithmic, for systems differ by orders of magnitude.

use super::figures::{Point, SERIES_MAX, Series};
use crate::workload::Failed;
use plotters::{coord::Shift, prelude::*, style::text_anchor};
use std::{fmt::Write, iter, ops::Range};

const WIDTH: u32 = 1000;
const PANELS_HEIGHT: u32 = 440;
/// The height of title and subtitle, and of a row of the legend.
const HEAD: u32 = 66;
const LEGEND_ROW: u32 = 24;
const MARGIN: i32 = 16;
/// The estimated width of a letter of the legend: an SVG does not know its font.
const LETTER: i32 = 8;
/// The least latency that is drawn: benchmarks print whole microseconds.
const LATENCY_MIN_US: f64 = 1.0;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A colour of the light theme, and that of the dark theme, which a style sheet puts in its place.
#[derive(Clone, Copy)]
struct Shade {
    light: RGBColor,
    dark: RGBColor,
}

const fn shade(light: u32, dark: u32) -> Shade {
    const fn rgb(of: u32) -> RGBColor {
        let [_, red, green, blue] = of.to_be_bytes();
        RGBColor(red, green, blue)
    }
    Shade { light: rgb(light), dark: rgb(dark) }
}

const PAPER: Shade = shade(0xff_ff_ff, 0x0d_11_17);
const INK: Shade = shade(0x1f_23_28, 0xe6_ed_f3);
const GRID: Shade = shade(0xd1_d9_e0, 0x30_36_3d);
/// Each contrasts with the paper by at least 4.5:1 in both themes.
static SERIES: [Shade; SERIES_MAX] = [
    shade(0x05_50_ae, 0x58_a6_ff),
    shade(0xbc_4c_00, 0xff_a6_57),
    shade(0x1a_7f_37, 0x3f_b9_50),
    shade(0x82_50_df, 0xd2_a8_ff),
    shade(0xbf_39_89, 0xff_9b_ce),
    shade(0x1b_7c_83, 0x39_c5_cf),
    shade(0x7d_4e_00, 0xe3_b3_41),
    shade(0x57_60_6a, 0x8b_94_9e),
];

struct Panel {
    name: &'static str,
    latency_us: fn(&Point) -> f64,
}

const PANELS: [Panel; 2] = [
    Panel { name: "median (p50)", latency_us: |point| point.p50_us.max(LATENCY_MIN_US) },
    Panel { name: "99th percentile (p99)", latency_us: |point| point.p99_us.max(LATENCY_MIN_US) },
];

/// Draws at most [`SERIES_MAX`] series, each with a point. `common` is the subtitle.
pub(super) fn draw(title: &str, common: &str, series: &[Series]) -> Result<String, Failed> {
    let legend = legend(series);
    let rows = 1 + legend.iter().map(|place| place.row).max().unwrap_or(0);
    let head = HEAD + rows * LEGEND_ROW;
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, (WIDTH, head + PANELS_HEIGHT)).into_drawing_area();
    canvas.fill(&PAPER.light)?;
    canvas.draw(&Text::new(title, (MARGIN, 14), text(25)))?;
    canvas.draw(&Text::new(format!("{common}; labels: requests in flight"), (MARGIN, 42), text(17)))?;
    for (nth, (series, place)) in series.iter().zip(&legend).enumerate() {
        let y = (HEAD + place.row * LEGEND_ROW + LEGEND_ROW / 2) as i32;
        let line = SERIES[nth].light.stroke_width(2);
        canvas.draw(&PathElement::new([(place.x, y), (place.x + 28, y)], line))?;
        canvas.draw(&(EmptyElement::at((place.x + 14, y)) + mark(nth)))?;
        let middle = text_anchor::Pos::new(text_anchor::HPos::Left, text_anchor::VPos::Center);
        canvas.draw(&Text::new(series.name.as_str(), (place.x + 36, y), text(17).pos(middle)))?;
    }
    let (_, panels) = canvas.split_vertically(head);
    let latencies = PANELS.iter().flat_map(|panel| points(series).map(panel.latency_us));
    let axes = Axes { ops_per_s: bounds(points(series).map(|point| point.ops_per_s)), us: bounds(latencies) };
    for (panel, area) in PANELS.iter().zip(panels.split_evenly((1, PANELS.len()))) {
        draw_panel(panel, &area, series, &axes)?;
    }
    canvas.present()?;
    drop((panels, canvas));
    Ok(with_texts(&svg, title, &description(common, series)))
}

/// The ranges of both axes, which all panels share.
struct Axes {
    ops_per_s: Range<f64>,
    us: Range<f64>,
}

fn draw_panel(panel: &Panel, area: &Canvas, series: &[Series], axes: &Axes) -> Result<(), Failed> {
    let (x, y) = (axes.ops_per_s.clone(), axes.us.clone());
    let (x_ticks, y_ticks) = (ticks(&x), ticks(&y));
    let mut chart = ChartBuilder::on(area)
        .caption(panel.name, text(20))
        .margin(MARGIN)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(x.log_scale().with_key_points(x_ticks), y.log_scale().with_key_points(y_ticks))?;
    chart
        .configure_mesh()
        .axis_style(INK.light)
        .bold_line_style(GRID.light)
        .light_line_style(TRANSPARENT)
        .label_style(text(16))
        .axis_desc_style(text(16))
        .x_desc("throughput in operations/s (logarithmic)")
        .y_desc("latency (logarithmic)")
        .x_label_formatter(&|per_s| count(*per_s))
        .y_label_formatter(&|us| duration(*us))
        .draw()?;
    for (nth, series) in series.iter().enumerate() {
        let line: Vec<_> = series.points.iter().map(|point| at(panel, point)).collect();
        chart.draw_series(iter::once(PathElement::new(line.clone(), SERIES[nth].light.stroke_width(2))))?;
        chart.draw_series(line.into_iter().map(|at| EmptyElement::at(at) + mark(nth)))?;
    }
    for (nth, series) in series.iter().enumerate() {
        // Lines rise to the right, so these places are free; neighbours have different ones.
        let (offset, x, y) = match nth % 2 {
            0 => ((-7, -5), text_anchor::HPos::Right, text_anchor::VPos::Bottom),
            _ => ((8, 3), text_anchor::HPos::Left, text_anchor::VPos::Top),
        };
        let style = text(15).color(&SERIES[nth].light).pos(text_anchor::Pos::new(x, y));
        chart.draw_series(series.points.iter().map(|point| {
            EmptyElement::at(at(panel, point)) + Text::new(point.in_flight.to_string(), offset, style.clone())
        }))?;
    }
    Ok(())
}

fn at(panel: &Panel, point: &Point) -> (f64, f64) {
    (point.ops_per_s, (panel.latency_us)(point))
}

fn points(series: &[Series]) -> impl Iterator<Item = &Point> {
    series.iter().flat_map(|series| &series.points)
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK.light)
}

/// The mark of a point. Its form tells series apart where colours do not.
fn mark(nth: usize) -> Polygon<(i32, i32)> {
    let corners = match nth % 4 {
        0 => vec![(-5, -5), (5, -5), (5, 5), (-5, 5)],
        1 => vec![(0, -7), (6, 5), (-6, 5)],
        2 => vec![(0, -7), (7, 0), (0, 7), (-7, 0)],
        _ => vec![(0, 7), (6, -5), (-6, -5)],
    };
    Polygon::new(corners, SERIES[nth].light.filled())
}

/// The place of a series in the legend.
struct Place {
    x: i32,
    row: u32,
}

/// Rows from left to right, none of them wider than the drawing.
fn legend(series: &[Series]) -> Vec<Place> {
    let (mut x, mut row) = (MARGIN, 0);
    let place = |series: &Series| {
        let width = 60 + LETTER * i32::try_from(series.name.chars().count()).unwrap_or(i32::MAX / LETTER / 2);
        if x > MARGIN && x + width > WIDTH as i32 {
            (x, row) = (MARGIN, row + 1);
        }
        let place = Place { x, row };
        x += width;
        place
    };
    series.iter().map(place).collect()
}

/// A range around positive figures, with room for the labels of points.
fn bounds(figures: impl Iterator<Item = f64>) -> Range<f64> {
    let (least, most) =
        figures.fold((f64::MAX, f64::MIN), |(least, most), figure| (least.min(figure), most.max(figure)));
    least / 2.0..most * 2.0
}

/// Powers of ten in a positive range, and 2 and 5 times them if there is room.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    let steps: &[f64] = if range.end / range.start > 1e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let (least, most) = (range.start.log10().floor() as i32, range.end.log10().ceil() as i32);
    let ticks = (least..=most).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    ticks.filter(|tick| range.contains(tick)).collect()
}

fn count(figure: f64) -> String {
    match figure {
        1e6.. => format!("{}M", figure / 1e6),
        1e3.. => format!("{}k", figure / 1e3),
        _ => format!("{}", (figure * 1e3).round() / 1e3),
    }
}

fn duration(us: f64) -> String {
    match us {
        1e6.. => format!("{} s", us / 1e6),
        1e3.. => format!("{} ms", us / 1e3),
        _ => format!("{} µs", (us * 1e3).round() / 1e3),
    }
}

/// All figures as text, for readers that see no drawing.
fn description(common: &str, series: &[Series]) -> String {
    let mut text = format!("Latency against throughput, {common}.");
    for series in series {
        for Point { in_flight, ops_per_s, p50_us, p99_us } in &series.points {
            let _ = write!(
                text,
                " {}, {in_flight} in flight: {ops_per_s:.0} operations/s, p50 {p50_us:.0} µs, p99 {p99_us:.0} µs.",
                series.name
            );
        }
    }
    text
}

/// Adds title and description, which the library does not write, and the dark theme.
fn with_texts(svg: &str, title: &str, description: &str) -> String {
    let mut style = String::new();
    for shade in [PAPER, INK, GRID].iter().chain(&SERIES) {
        let (light, dark) = (hex(shade.light), hex(shade.dark));
        let _ = write!(style, "[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}");
    }
    let (title, description) = (escaped(title), escaped(description));
    let (open, rest) = svg.split_once('>').unwrap_or((svg, ""));
    format!(
        "{open} role=\"img\" aria-labelledby=\"title desc\">\n<title id=\"title\">{title}</title>\n\
         <desc id=\"desc\">{description}</desc>\n<style>@media (prefers-color-scheme: dark){{{style}}}</style>{rest}"
    )
}

/// The notation in which the library writes a colour.
fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::{Document, Node};

    fn series(name: &str, points: &[(u64, f64, f64, f64)]) -> Series {
        let points =
            points.iter().map(|&(in_flight, ops_per_s, p50_us, p99_us)| Point { in_flight, ops_per_s, p50_us, p99_us });
        Series { name: name.into(), points: points.collect() }
    }

    fn two() -> Vec<Series> {
        let quorate = [(1, 900.0, 1_000.0, 2_000.0), (64, 40_000.0, 1_500.0, 4_000.0), (1024, 9e4, 1e4, 3e4)];
        vec![series("quorate", &quorate), series("a <b> & c", &[(1, 800.0, 1_100.0, 2_000.0), (64, 3e4, 2e3, 5e3)])]
    }

    fn texts<'a>(document: &'a Document) -> Vec<&'a str> {
        document
            .descendants()
            .filter(|node| node.has_tag_name("text"))
            .filter_map(|node| node.text())
            .map(str::trim)
            .collect()
    }

    #[test]
    fn each_panel_has_a_mark_and_a_label_for_each_point() {
        let svg = draw("Title", "3 nodes", &two()).unwrap();
        let document = Document::parse(&svg).unwrap();
        for (nth, series) in two().iter().enumerate() {
            let colour = hex(SERIES[nth].light);
            let is_of = |node: &Node, tag: &str| node.has_tag_name(tag) && node.attribute("fill") == Some(&*colour);
            let of = |tag: &str| -> Vec<String> {
                let all = document.descendants().filter(|node| is_of(node, tag));
                all.map(|node| node.text().unwrap_or("").trim().to_owned()).collect()
            };
            assert_eq!(of("polygon").len(), PANELS.len() * series.points.len() + 1, "{} and its legend", series.name);
            let labels: Vec<String> = series.points.iter().map(|point| point.in_flight.to_string()).collect();
            assert_eq!(of("text"), [&labels[..], &labels[..]].concat());
        }
    }

    #[test]
    fn a_drawing_says_what_it_shows() {
        let svg = draw("Latency <1> & more", "3 nodes, medians of 3 rounds", &two()).unwrap();
        let document = Document::parse(&svg).unwrap();
        let child = |tag: &str| document.root_element().children().find(|node| node.has_tag_name(tag)).unwrap();
        assert_eq!(child("title").text(), Some("Latency <1> & more"));
        let description = child("desc").text().unwrap();
        let expected = "a <b> & c, 64 in flight: 30000 operations/s, p50 2000 µs, p99 5000 µs.";
        assert!(description.ends_with(expected), "{description}");
        let texts = texts(&document);
        for expected in [
            "Latency <1> & more",
            "3 nodes, medians of 3 rounds; labels: requests in flight",
            "quorate",
            "a <b> & c",
            "median (p50)",
            "99th percentile (p99)",
            "throughput in operations/s (logarithmic)",
            "latency (logarithmic)",
            "10k",
            "10 ms",
        ] {
            assert!(texts.contains(&expected), "{expected} in {texts:?}");
        }
    }

    #[test]
    fn every_colour_has_one_for_the_dark_theme() {
        let svg = draw("Title", "", &two()).unwrap();
        let document = Document::parse(&svg).unwrap();
        let style = document.descendants().find(|node| node.has_tag_name("style")).unwrap().text().unwrap();
        for node in document.descendants() {
            for name in ["fill", "stroke"] {
                let Some(colour) = node.attribute(name).filter(|colour| *colour != "none") else { continue };
                assert!(style.contains(&format!("[{name}=\"{colour}\"]")), "{name} {colour}");
            }
        }
    }

    #[test]
    fn a_single_point_and_no_latency_are_drawn() {
        for point in [(1, 1.0, 0.0, 0.0), (1, 1e12, 1e12, 1e12), (1, 0.001, 0.4, 7.0)] {
            let svg = draw("Title", "", &[series("one", &[point])]).unwrap();
            let document = Document::parse(&svg).unwrap();
            assert!(texts(&document).iter().any(|text| text.ends_with("s") && text.contains(' ')), "a tick of latency");
        }
    }

    #[test]
    fn ticks_are_round_figures_within_the_range() {
        assert_eq!(ticks(&(30.0..700.0)), [50.0, 100.0, 200.0, 500.0]);
        assert_eq!(ticks(&(30.0..70_000.0)), [100.0, 1e3, 1e4]);
        assert_eq!([10.0, 2e3, 5e6].map(count), ["10", "2k", "5M"]);
        assert_eq!([10.0, 2e3, 5e6].map(duration), ["10 µs", "2 ms", "5 s"]);
    }

    #[test]
    fn a_long_legend_continues_in_the_next_row() {
        let all: Vec<Series> =
            (0..SERIES_MAX).map(|nth| series(&format!("a system with a long name {nth}"), &[])).collect();
        let places = legend(&all);
        assert_eq!(places.iter().map(|place| place.row).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 2, 2]);
        assert!(places.iter().all(|place| place.x < WIDTH as i32 * 3 / 4));
    }
}

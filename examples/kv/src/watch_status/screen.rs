//! The screen: facts become a buffer. Pure. The sections stand in the order of the live page, and
//! the story takes the lines that the others leave.

use super::{
    facts::{Connection, Facts, Told},
    nodes::{self, Mark},
    words::{clock, columns, count, cut, millis, printable, seconds, wrap},
};
use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};
use std::time::Duration;

/// Matters for operators that are shown.
const NEEDS_MAX: usize = 2;
/// The left margin of texts below the verdict.
const MARGIN: usize = 2;
/// Kinds of events that say again, from the other side, what a vote or a state says.
const SAID_TWICE: [&str; 3] = ["vote_received", "link_up", "term_changed"];

/// How the reader looks at the facts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct View {
    /// The events that are scrolled out at the top of the story.
    pub(super) scrolled: usize,
    pub(super) is_paused: bool,
    pub(super) has_colour: bool,
}

/// Draws the facts, and returns the most events that can be scrolled out.
pub(super) fn draw(frame: &mut Frame<'_>, facts: &Facts, view: &View, now: Duration) -> usize {
    let Rect { width, height, .. } = frame.area();
    let (width, height) = (usize::from(width), usize::from(height));
    let paint = Paint { has_colour: view.has_colour };
    let mut lines = above(facts, view, now, width, paint);
    let keys = Line::styled(cut("q quit  p pause  ↑ ↓ story", width), paint.faint());
    // The story keeps two lines: its title and the newest sentence.
    lines.truncate(height.saturating_sub(3).max(1));
    let room = height.saturating_sub(lines.len() + 2);
    let (story, scrolled_max) = story(facts, view.scrolled, room, width, paint);
    lines.push(Line::styled("Story, newest first", paint.title()));
    lines.extend(story);
    lines.resize_with(height.saturating_sub(1), Line::default);
    lines.push(keys);
    for (line, y) in lines.iter().zip(0..frame.area().height) {
        let area = Rect { x: 0, y, width: frame.area().width, height: 1 };
        frame.render_widget(line, area);
    }
    scrolled_max
}

/// The sections above the story.
fn above(facts: &Facts, view: &View, now: Duration, width: usize, paint: Paint) -> Vec<Line<'static>> {
    let page = &facts.page;
    let stale = facts.stale(now);
    let mut lines = vec![title(facts, view, now, width, paint)];
    if !facts.are_known() {
        let says = match &facts.connection {
            Connection::Up { endpoint } => format!("Waiting for the state of the cluster from {endpoint}."),
            Connection::Lost { cause, next, .. } => format!("Connection lost: {cause}. Trying {next}."),
        };
        lines.extend(wrap(&printable(&says), width).into_iter().map(Line::from));
        return lines;
    }

    let verdict = verdict(facts, now);
    let sign = match &*verdict.level {
        "ok" => "✓",
        "warn" => "▲",
        "bad" => "✕",
        _ => "◌",
    };
    let head = format!("{sign} {}", printable(&verdict.word));
    let says = wrap(&printable(&verdict.says), width.saturating_sub(columns(&head) + 2).max(16));
    let mut says = says.into_iter();
    lines.push(Line::from(vec![
        Span::styled(head, paint.level(&verdict.level)),
        Span::raw("  "),
        Span::raw(says.next().unwrap_or_default()),
    ]));
    lines.extend(says.map(|line| indented(&line)));
    lines.extend(texts(&verdict.facts, width));
    for need in verdict.needs.iter().take(NEEDS_MAX) {
        lines.extend(texts(need, width));
    }
    if verdict.needs.is_empty() {
        lines.extend(texts("Nothing needs attention.", width));
    }

    for row in nodes::rows(facts, now, width) {
        let style = match row.mark {
            _ if stale.is_some() && row.mark != Mark::Head => paint.faint(),
            Mark::Head => paint.title(),
            Mark::Leader => Style::new().add_modifier(Modifier::BOLD),
            Mark::Member => Style::new(),
            Mark::NoAnswer => paint.colour(Color::Red),
        };
        lines.push(Line::styled(printable(&row.text), style));
    }
    lines.push(Line::from(cut(&links(facts), width)));
    let writes = page.writes_per_s.map_or("-".to_owned(), |rate| count(rate.max(0.0) as u64));
    let p99 = page.p99_ms.map_or("-".to_owned(), millis);
    lines.push(Line::from(cut(&format!("Writes {writes}/s   p99 {p99}   Waiting {}", count(page.waiting)), width)));
    let stages = page.stages_ms();
    if !stages.is_empty() {
        let stages: Vec<_> = stages.iter().map(|(name, ms)| format!("{name} {ms:.2}")).collect();
        lines.push(Line::from(cut(&format!("Stages ms  {}", stages.join(" ")), width)));
    }
    lines
}

/// The name of the cluster on the left, and the connection on the right.
fn title(facts: &Facts, view: &View, now: Duration, width: usize, paint: Paint) -> Line<'static> {
    let left = format!("Quorate  {}", printable(&facts.page.cluster));
    let time = humantime::parse_rfc3339(&facts.page.wall).map(clock).unwrap_or_default();
    let right = match (&facts.connection, facts.stale(now)) {
        _ if view.is_paused => format!("Paused at {time}"),
        (Connection::Lost { .. }, Some(since)) => format!("Lost for {}, facts of {time}", seconds(since)),
        _ if !facts.are_known() => String::new(),
        _ => format!("Live {time}, from node {}", facts.page.served_by),
    };
    let left = cut(&left, width.saturating_sub(columns(&right) + 1));
    let fill = width.saturating_sub(columns(&left) + columns(&right));
    let style = Style::new().add_modifier(Modifier::BOLD);
    let right = Span::styled(cut(&right, width), if view.is_paused { paint.title() } else { Style::new() });
    Line::from(vec![Span::styled(left, style), Span::raw(" ".repeat(fill)), right])
}

/// The verdict as it is shown: the server's, or that of a lost connection.
struct Shown {
    level: String,
    word: String,
    says: String,
    facts: String,
    needs: Vec<String>,
}

fn verdict(facts: &Facts, now: Duration) -> Shown {
    let page = &facts.page;
    let (Connection::Lost { endpoint, cause, next, .. }, Some(since)) = (&facts.connection, facts.stale(now)) else {
        let verdict = page.verdict.clone();
        let need = |need: &super::page::Need| match &*need.next {
            "" => need.text.clone(),
            next => format!("{} Next: {next}", need.text),
        };
        let needs = page.needs.iter().map(need).collect();
        return Shown { level: verdict.level, word: verdict.word, says: verdict.says, facts: verdict.facts, needs };
    };
    let leader = page.leader.and_then(|leader| Some((leader, page.nodes.get(&leader)?.term?)));
    Shown {
        level: "lost".to_owned(),
        word: "Connection lost".to_owned(),
        says: match leader {
            Some((leader, term)) => format!("When last heard, node {leader} led term {term}."),
            None => "When last heard, there was no leader.".to_owned(),
        },
        facts: format!("{endpoint}: {cause}. Trying {next}."),
        needs: vec![format!("Everything below is {} old.", seconds(since))],
    }
}

/// The links that are not up.
fn links(facts: &Facts) -> String {
    let links = &facts.page.links;
    let not_up = links.iter().filter(|(_, link)| link.state != "up");
    let not_up: Vec<_> = not_up
        .map(|(name, link)| match link.rtt_ms {
            Some(rtt) => format!("{} {}, {}", printable(name), printable(&link.state), millis(rtt)),
            None => format!("{} {}", printable(name), printable(&link.state)),
        })
        .collect();
    match (links.is_empty(), not_up.is_empty()) {
        (true, _) => "Links: none is known.".to_owned(),
        (false, true) => "Links: all are up.".to_owned(),
        (false, false) => format!("Links not up: {}", not_up.join("; ")),
    }
}

/// The sentences of events, and the most that can be scrolled out.
fn story(facts: &Facts, scrolled: usize, room: usize, width: usize, paint: Paint) -> (Vec<Line<'static>>, usize) {
    let shown: Vec<_> = facts.story.iter().filter(|told| is_shown(told)).collect();
    let scrolled_max = shown.len().saturating_sub(1);
    let mut lines = Vec::new();
    for Told { at, event } in shown.into_iter().skip(scrolled.min(scrolled_max)) {
        if lines.len() >= room {
            break;
        }
        let head = format!("{}  {:>2}  ", clock(*at), event.node);
        let reference = event.reference.as_ref().map_or(String::new(), |reference| {
            // In one piece, by spaces that do not break.
            format!(" ({})", printable(reference).replace(' ', "\u{a0}"))
        });
        let says = format!("{}{reference}", printable(&event.text));
        let indent = columns(&head);
        for (number, line) in wrap(&says, width.saturating_sub(indent).max(16)).into_iter().enumerate() {
            let before = if number == 0 { head.clone() } else { " ".repeat(indent) };
            lines.push(Line::from(vec![Span::styled(before, paint.faint()), Span::raw(line)]));
        }
    }
    lines.truncate(room);
    (lines, scrolled_max)
}

/// Whether the story has an event: it leaves out what another event says too.
pub(super) fn is_shown(told: &Told) -> bool {
    !SAID_TWICE.contains(&&*told.event.kind)
}

fn texts(text: &str, width: usize) -> impl Iterator<Item = Line<'static>> {
    wrap(&printable(text), width.saturating_sub(MARGIN).max(16)).into_iter().map(|line| indented(&line))
}

fn indented(line: &str) -> Line<'static> {
    Line::from(format!("{}{line}", " ".repeat(MARGIN)))
}

/// Styles beside words and signs. The sixteen colours of the terminal suit its background; texts
/// keep its own colour.
#[derive(Clone, Copy)]
struct Paint {
    has_colour: bool,
}

impl Paint {
    fn colour(self, colour: Color) -> Style {
        if self.has_colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn level(self, level: &str) -> Style {
        let style = match level {
            "ok" => self.colour(Color::Green),
            "bad" => self.colour(Color::Red),
            // Yellow is hard to read on white.
            _ => self.colour(Color::Magenta),
        };
        style.add_modifier(Modifier::BOLD)
    }

    fn title(self) -> Style {
        Style::new().add_modifier(Modifier::UNDERLINED)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

#[cfg(test)]
mod tests;

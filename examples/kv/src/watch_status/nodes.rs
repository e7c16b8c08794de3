//! The table of nodes. A column that does not fit is left out, the least important first.

use super::{
    facts::Facts,
    page::{Node, Page},
    words::{NONE, cell, columns, count, millis, seconds},
};
use std::time::Duration;

/// The columns between two columns of the table.
const GAP: usize = 1;
/// The least width of the last column, which takes what the others leave.
const DOING_MIN: usize = 12;

/// A row, and how it is marked beside its words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) text: String,
    pub(super) mark: Mark,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark {
    Head,
    Leader,
    Member,
    NoAnswer,
}

struct Column {
    title: &'static str,
    is_right: bool,
    /// The columns with the highest rank are left out first.
    rank: u8,
    cells: Vec<String>,
}

/// The rows of all nodes: one table if it fits, else one of states and one of logs.
pub(super) fn rows(facts: &Facts, now: Duration, width: usize) -> Vec<Row> {
    let page = &facts.page;
    let stale = facts.stale(now);
    let of = |cells: fn(&Context<'_>) -> String| -> Vec<String> {
        page.nodes.iter().map(|(id, node)| cells(&Context { page, id: *id, node, stale })).collect()
    };
    let column = |title, is_right, rank, cells| Column { title, is_right, rank, cells: of(cells) };
    let node = || column("Node", true, 0, |at| at.id.to_string());
    let state = || {
        vec![
            column("Role", false, 1, role),
            column("Term", true, 2, |at| number(at.node.term)),
            column("Vote", true, 7, |at| number(at.node.vote)),
            column("Timer", true, 6, |at| at.node.timer.as_ref().map_or(NONE.into(), |timer| millis(timer.left_ms))),
        ]
    };
    let log = || {
        vec![
            column("Applied", true, 5, |at| number(at.node.applied)),
            column("Commit", true, 4, |at| number(at.node.commit)),
            column("Durable", true, 6, |at| number(at.node.durable)),
            column("Last", true, 3, |at| number(at.node.last)),
        ]
    };
    let rest = || {
        vec![
            column("Lag", true, 3, |at| number(at.page.lag(at.node))),
            column("Sync", true, 8, |at| at.node.sync_ms.map_or(NONE.into(), millis)),
            column("Age", true, 5, age),
            column("Doing", false, 4, doing),
        ]
    };
    let whole: Vec<_> = [node()].into_iter().chain(state()).chain(log()).chain(rest()).collect();
    if needed(&whole) <= width {
        return lines(whole, page, width);
    }
    let states = [node()].into_iter().chain(state()).chain(rest()).collect();
    let logs = [node()].into_iter().chain(log()).collect();
    let mut rows = lines(states, page, width);
    rows.extend(lines(logs, page, width));
    rows
}

struct Context<'a> {
    page: &'a Page,
    id: u64,
    node: &'a Node,
    /// The time since which no node serves.
    stale: Option<Duration>,
}

fn lines(mut columns_of: Vec<Column>, page: &Page, width: usize) -> Vec<Row> {
    while needed(&columns_of) > width && columns_of.len() > 2 {
        let worst = columns_of.iter().map(|column| column.rank).max();
        columns_of.retain(|column| Some(column.rank) != worst);
    }
    let taken: usize = columns_of.iter().map(|column| column.width() + GAP).sum();
    let spare = width.saturating_sub(taken.saturating_sub(GAP));
    let line = |cells: &dyn Fn(&Column) -> String| {
        let cells: Vec<_> = columns_of
            .iter()
            .map(|column| {
                let more = if column.title == "Doing" { spare } else { 0 };
                cell(&cells(column), column.width() + more, column.is_right)
            })
            .collect();
        cells.join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let head = Row { text: line(&|column| column.title.to_owned()), mark: Mark::Head };
    let nodes = page.nodes.iter().enumerate().map(|(at, (id, node))| Row {
        text: line(&|column| column.cells[at].clone()),
        mark: match node.up {
            false => Mark::NoAnswer,
            true if page.leader == Some(*id) => Mark::Leader,
            true => Mark::Member,
        },
    });
    [head].into_iter().chain(nodes).collect()
}

fn needed(columns: &[Column]) -> usize {
    columns.iter().map(|column| column.width() + GAP).sum::<usize>().saturating_sub(GAP)
}

impl Column {
    fn width(&self) -> usize {
        if self.title == "Doing" {
            return DOING_MIN;
        }
        self.cells.iter().map(|cell| columns(cell)).max().unwrap_or(0).max(columns(self.title))
    }
}

fn number(of: Option<u64>) -> String {
    of.map_or(NONE.to_owned(), count)
}

/// The role, with the sign of the live page: it is told without colour too.
fn role(at: &Context<'_>) -> String {
    if !at.node.up {
        return "x no answer".to_owned();
    }
    let role = at.node.role.as_deref().unwrap_or("unknown");
    let is_witness = at.page.config.witness == Some(at.id);
    let (sign, word) = match role {
        "leader" => ("●", role),
        "candidate" => ("◌", role),
        "pre_candidate" => ("◌", "pre-candidate"),
        _ if is_witness => ("□", "witness"),
        "learner" => ("·", role),
        _ => ("○", role),
    };
    format!("{sign} {word}")
}

/// How old the facts are, and the node that passed them on.
fn age(at: &Context<'_>) -> String {
    let Some(seen) = &at.node.seen else { return NONE.to_owned() };
    let age = Duration::from_millis(seen.age_ms) + at.stale.unwrap_or_default();
    let age = if age.is_zero() { "now".to_owned() } else { seconds(age) };
    match seen.via {
        Some(via) => format!("{age} via {via}"),
        None => age,
    }
}

/// What a node does besides its role; the judgement that its disk is slow is the server's.
fn doing(at: &Context<'_>) -> String {
    let Context { page, id, node, .. } = at;
    let mut doing = Vec::new();
    if let Some(work) = &node.doing {
        doing.push(match (work.part, work.entries) {
            (Some(part), _) => format!("{} {:.0} %", work.what, (part * 100.0).floor()),
            (None, Some(entries)) => format!("{}, {} to go", work.what, count(entries)),
            (None, None) => work.what.clone(),
        });
    }
    if let Some(votes) = &node.votes {
        let kind = if votes.kind == "pre_vote" { "pre-votes" } else { "votes" };
        doing.push(format!("{kind}: {} yes, {} no", votes.yes.len(), votes.no.len()));
    }
    if page.needs.iter().any(|need| need.node == *id && need.runbook == "slow-disk") {
        doing.push("slow disk".to_owned());
    }
    if node.storage_full {
        doing.push("disk full".to_owned());
    }
    if let Some(index) = node.halted_at {
        doing.push(format!("halted at {}", count(index)));
    }
    match node.conflict() {
        Some(Some(index)) => doing.push(format!("conflict at {}", count(index))),
        Some(None) => doing.push("conflict".to_owned()),
        None => {}
    }
    doing.join(", ")
}

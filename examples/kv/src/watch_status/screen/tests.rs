//! Screens, compared with the files beside this one.

use super::{super::fixtures::*, *};
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};
use serde_json::{Value, json};

const PLAIN: View = View { scrolled: 0, is_paused: false, has_colour: false };
const COLOUR: View = View { has_colour: true, ..PLAIN };

#[test]
fn a_steady_cluster() {
    shows(&steady(), 80, 24, at(1), "steady");
    shows(&steady(), 140, 24, at(1), "steady-wide");
}

#[test]
fn no_leader() {
    let votes = json!({"kind": "vote", "yes": [1], "no": []});
    let facts = patched(json!({
        "leader": null, "links": {"3>1": null, "3>2": null, "1>2": {"state": "up", "rtt_ms": 0.4}}, "waiting": 512,
        "writes_per_s": null,
        "nodes": {"1": {"role": "candidate", "term": 9, "vote": 1, "votes": votes}, "3": {"up": false, "seen": {"age_ms": 2_100}}},
        "verdict": {"level": "bad", "word": "No leader",
            "says": "No leader for 2.1 s. Node 1 asks for votes in term 9.",
            "facts": "512 requests wait. 2 of 3 voters answer, 2 are needed. The candidate lacks 1 of 2 votes."},
        "needs": [{"node": 3, "text": "Node 3 has not answered for 2.1 s.", "next": "systemctl status quorate", "runbook": "node-down"}],
    }));
    shows(&facts, 80, 24, at(1), "no-leader");
}

#[test]
fn one_node_without_answer() {
    let facts = patched(json!({
        "nodes": {"1": {"up": false, "seen": {"age_ms": 12_000}}}, "links": {"3>1": {"state": "quiet", "rtt_ms": null}},
        "verdict": {"level": "warn", "word": "Degraded", "says": "Node 3 leads term 8. Node 1 does not answer.",
            "facts": "12,430 entries/s. One more failure stops writes."},
        "needs": [{"node": 1, "text": "Node 1 has not answered for 12 s.", "next": "systemctl status quorate", "runbook": "node-down"}],
    }));
    shows(&facts, 80, 24, at(1), "no-answer");
}

#[test]
fn a_slow_disk_and_the_figures_of_a_write() {
    let facts = patched(json!({
        "p99_ms": 2.14, "nodes": {"1": {"sync_ms": 180.2, "doing": {"what": "snapshot", "part": 0.256}, "seen": {"age_ms": 700, "via": 2}}},
        "links": {"3>1": {"state": "slow", "rtt_ms": 230.4}},
        "stages_ms": {"queue": [0.08, 0.16], "encode": [0.03, 0.05], "quorum": [0.96, 1.44], "commit": [0.02, 0.04],
            "apply": [0.05, 0.09], "reply": [0.1, 0.2], "voters": {"1": [180, 270], "2": [0.96, 1.44]}},
        "verdict": {"level": "warn", "word": "Degraded", "says": "Node 3 leads term 8. The disk of node 1 is slow."},
        "needs": [{"node": 1, "text": "A sync on the disk of node 1 takes 180 ms, usually 0.6.", "next": "iostat -x 1", "runbook": "slow-disk"}],
    }));
    shows(&facts, 80, 24, at(1), "slow-disk");
}

#[test]
fn a_narrow_terminal() {
    shows(&steady(), 44, 20, at(1), "narrow");
}

#[test]
fn a_lost_connection() {
    let mut facts = steady();
    facts.take(lost_to("http://10.0.0.1:8080"), at(2)).expect("lost");
    shows(&facts, 80, 24, at(6), "lost");
}

#[test]
fn the_smallest_terminals_show_a_part_and_never_panic() {
    for (width, height) in [(1, 1), (2, 2), (5, 3), (20, 4), (79, 6), (300, 100)] {
        buffer(&steady(), &COLOUR, width, height, at(1));
        buffer(&Facts::of("http://10.0.0.3:8080".into()), &COLOUR, width, height, at(1));
    }
}

#[test]
fn the_story_scrolls_and_a_pause_is_said() {
    let view = View { scrolled: 1, is_paused: true, ..PLAIN };
    let screen = text(&buffer(&steady(), &view, 80, 24, at(1)));
    assert!(screen.contains("Paused at 03:12:00.2") && !screen.contains("with the votes"), "{screen}");
    assert!(screen.contains("Node 3 asks for votes in term 8"), "{screen}");
    let far = View { scrolled: usize::MAX, ..PLAIN };
    assert!(text(&buffer(&steady(), &far, 80, 24, at(1))).contains("Node 3 asks for votes"), "one sentence stays");
}

#[test]
fn colour_adds_nothing_to_the_text_and_without_it_no_cell_has_one() {
    let mut lost = steady();
    lost.take(lost_to("http://10.0.0.1:8080"), at(2)).expect("lost");
    for facts in [steady(), lost, patched(json!({"nodes": {"1": {"up": false}}}))] {
        let (plain, colour) = (buffer(&facts, &PLAIN, 80, 24, at(6)), buffer(&facts, &COLOUR, 80, 24, at(6)));
        assert_eq!(text(&plain), text(&colour));
        assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        assert!(colour.content.iter().any(|cell| cell.fg != Color::Reset));
        // The background is the terminal's, dark or light.
        assert!(colour.content.iter().all(|cell| cell.bg == Color::Reset));
    }
}

#[test]
fn texts_of_other_machines_do_not_drive_the_terminal() {
    let facts = patched(json!({"cluster": "a\u{1b}[2J", "verdict": {"says": "b\u{1b}[31m"}}));
    let screen = text(&buffer(&facts, &PLAIN, 80, 24, at(1)));
    assert!(!screen.contains('\u{1b}') && screen.contains("\\u{1b}[2J"), "{screen}");
}

fn patched(patch: Value) -> Facts {
    let mut facts = steady();
    facts.take(delta(patch), at(1)).expect("a patch");
    facts
}

fn shows(facts: &Facts, width: u16, height: u16, now: Duration, name: &str) {
    let screen = text(&buffer(facts, &PLAIN, width, height, now));
    let file = format!("{}/src/watch_status/screen/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let expected = std::fs::read_to_string(&file).expect("a screen");
    assert!(screen == expected, "the screen is\n{screen}\nand not, as in {file},\n{expected}");
}

fn buffer(facts: &Facts, view: &View, width: u16, height: u16, now: Duration) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
    let drawn = terminal.draw(|frame| _ = draw(frame, facts, view, now));
    drawn.expect("in memory");
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let rows = buffer.content.chunks(usize::from(buffer.area.width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n").collect()
}

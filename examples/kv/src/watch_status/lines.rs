//! Lines for a pipe, a file or a program: one for each event and for each change of the verdict.

use super::{
    facts::{Change, Connection, Facts},
    page::{Event, Verdict},
    words::printable,
};
use serde_json::{Value, json};

/// A change in a line for people: its time, what it is, and the sentences of the server.
pub(super) fn text(change: &Change, facts: &Facts, wall: &str) -> String {
    let (at, what, says) = match change {
        Change::Verdict => (&*facts.page.wall, "verdict", verdict(facts)),
        Change::Event(event) => (&*event.wall, "event", event_says(event)),
        Change::Missed { what, count, node: Some(node) } => {
            (wall, "missed", format!("{count} {what} of node {node} are lost"))
        }
        Change::Missed { what, count, node: None } => (wall, "missed", format!("{count} {what} are lost")),
        Change::Lost => (wall, "connection", connection(facts)),
        Change::Moved => (wall, "connection", connection(facts)),
    };
    printable(&format!("{at}  {what:<10}  {says}"))
}

fn verdict(facts: &Facts) -> String {
    let Verdict { word, says, facts: figures, .. } = &facts.page.verdict;
    let needs = facts.page.needs.iter().map(|need| match &*need.next {
        "" => format!(" {}", need.text),
        next => format!(" {} Next: {next}.", need.text),
    });
    format!("{word}: {says} {figures}{}", needs.collect::<String>())
}

fn event_says(event: &Event) -> String {
    let reference = event.reference.as_ref().map_or(String::new(), |reference| format!(" ({reference})"));
    format!("node {}, term {}: {}{reference}", event.node, event.term, event.text)
}

fn connection(facts: &Facts) -> String {
    match &facts.connection {
        Connection::Up { endpoint } => format!("node {} serves at {endpoint}", facts.page.served_by),
        Connection::Lost { endpoint, cause, next, .. } => format!("{endpoint} is lost: {cause}; trying {next}"),
    }
}

/// A change as an object for programs. `what` says which further members it has.
pub(super) fn json(change: &Change, facts: &Facts, wall: &str) -> Value {
    let page = &facts.page;
    let mut object = match change {
        Change::Verdict => json!({
            "what": "verdict", "at": page.wall, "level": page.verdict.level, "word": page.verdict.word,
            "says": page.verdict.says, "facts": page.verdict.facts, "needs": page.needs, "leader": page.leader,
            "term": page.leader.and_then(|leader| page.nodes.get(&leader)?.term), "served_by": page.served_by,
        }),
        Change::Event(event) => json!({
            "what": "event", "at": event.wall, "id": event.id, "node": event.node, "term": event.term,
            "index": event.index, "peer": event.peer, "kind": event.kind, "severity": event.severity,
            "text": event.text, "why": event.why, "ref": event.reference,
        }),
        Change::Missed { what, count, node } => {
            json!({"what": "missed", "at": wall, "of": what, "count": count, "node": node})
        }
        Change::Lost | Change::Moved => match &facts.connection {
            Connection::Up { endpoint } => {
                json!({"what": "connection", "at": wall, "state": "up", "endpoint": endpoint, "node": page.served_by})
            }
            Connection::Lost { endpoint, cause, next, .. } => json!({
                "what": "connection", "at": wall, "state": "lost", "endpoint": endpoint, "cause": cause, "next": next,
            }),
        },
    };
    // Absent, as in the data of the live page.
    if let Value::Object(members) = &mut object {
        members.retain(|_, member| !member.is_null());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};
    use crate::client::{LiveMessage, LiveNews};
    use serde_json::json;

    const NOW: &str = "2026-11-29T03:13:00.000Z";

    #[test]
    fn a_line_has_the_time_and_the_sentences_of_the_server() {
        let mut facts = steady();
        assert_eq!(
            text(&Change::Verdict, &facts, NOW),
            "2026-11-29T03:12:00.250Z  verdict     Healthy: Node 3 leads term 8. All 3 nodes are up to date. 12,430 \
             entries/s. The cluster survives the loss of 1 more node."
        );
        let event = event("2-1-9", 61_500, "leader_elected", "Node 2 leads\nterm 9.");
        let told = facts.take(LiveNews::Message(LiveMessage::Event(event)), at(1)).expect("an event");
        assert_eq!(
            text(&told[0], &facts, NOW),
            "2026-11-29T03:11:00.150Z  event       node 3, term 8: Node 2 leads\\nterm 9. (paper §5.2)"
        );
        let told = facts.take(lost_to("http://10.0.0.1:8080"), at(2)).expect("lost");
        assert_eq!(
            text(&told[0], &facts, NOW),
            "2026-11-29T03:13:00.000Z  connection  http://10.0.0.3:8080 is lost: the answer ended; trying \
             http://10.0.0.1:8080"
        );
        let missed = Change::Missed { what: "events", count: 3, node: Some(2) };
        assert_eq!(text(&missed, &facts, NOW), "2026-11-29T03:13:00.000Z  missed      3 events of node 2 are lost");
    }

    #[test]
    fn an_object_has_what_the_line_says_and_no_member_that_is_null() {
        let mut facts = steady();
        let verdict = super::json(&Change::Verdict, &facts, NOW);
        assert_eq!(
            (&verdict["what"], &verdict["level"], &verdict["leader"], &verdict["term"], &verdict["needs"]),
            (&json!("verdict"), &json!("ok"), &json!(3), &json!(8), &json!([]))
        );
        facts.take(delta(json!({"leader": null})), at(1)).expect("a patch");
        assert!(super::json(&Change::Verdict, &facts, NOW).get("term").is_none());
        let event = event("2-1-9", 61_500, "leader_elected", "Node 2 leads term 9.");
        let told = facts.take(LiveNews::Message(LiveMessage::Event(event)), at(1)).expect("an event");
        let event = super::json(&told[0], &facts, NOW);
        assert_eq!((&event["kind"], &event["ref"]), (&json!("leader_elected"), &json!("paper §5.2")));
        assert!(event.get("index").is_none(), "{event}");
        let told = facts.take(lost_to("http://10.0.0.1:8080"), at(2)).expect("lost");
        let lost = super::json(&told[0], &facts, NOW);
        assert_eq!((&lost["state"], &lost["next"]), (&json!("lost"), &json!("http://10.0.0.1:8080")));
    }
}

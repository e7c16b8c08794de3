//! A typed service on whole nodes: calls, queries, sessions, restarts, snapshots.

mod support;

use quorate::{
    At, CallError, Consistency, Context, HaltCause, Hosted, Node, NodeId, NodeRole, QueryError, ReadError, Refused,
    Service, ServiceNode, SessionKey, Timing,
    storage::{Memory, MemoryLog},
};
use quorate_transport_testing::FaultNetwork;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use support::{CLUSTER, simulate, soon};
use tokio::time::sleep;

/// A register of texts.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Texts(Vec<String>);

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Command {
    Append(String),
    Panic,
    /// Appends the session of the caller.
    Introduce,
    /// Appends the text when this many milliseconds of log time have passed, and again after each
    /// further period of as many, this many times.
    Every(u32, u32, String),
    /// Of the version after this release.
    Clear,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Due(u32, u32, String);

impl Service for Texts {
    quorate::types!(Command => usize, usize => Option<String>, signal Due);
    const VERSION: u32 = 1;

    fn since(command: &Command) -> u32 {
        if matches!(command, Command::Clear) { 2 } else { 0 }
    }

    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> usize {
        match command {
            Command::Append(text) => self.0.push(text),
            Command::Panic => panic!("as it was told"),
            Command::Introduce => self.0.push(format!("{:?}", cx.session())),
            Command::Every(ms, times, text) => cx.after(period(ms), Due(ms, times, text)),
            Command::Clear => self.0.clear(),
        }
        self.0.len()
    }

    fn signal(&mut self, Due(ms, times, text): Due, cx: &mut Context<'_, Self>) {
        self.0.push(format!("{text} at {}", cx.now().0));
        if times > 1 {
            cx.after(period(ms), Due(ms, times - 1, text));
        }
    }

    fn query(&self, nth: usize, _: At) -> Option<String> {
        assert!(nth < 1_000, "no text has this number");
        self.0.get(nth).cloned()
    }
}

fn period(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

struct Three {
    network: FaultNetwork,
    logs: Vec<MemoryLog>,
    nodes: Vec<ServiceNode<Texts>>,
}

impl Three {
    async fn start() -> Self {
        let logs = (0..3).map(|_| MemoryLog::new()).collect();
        let mut three = Self { network: FaultNetwork::new(1), logs, nodes: Vec::new() };
        for nth in 0..3 {
            three.nodes.push(three.start_one(nth).await);
        }
        three
    }

    async fn start_one(&self, nth: usize) -> ServiceNode<Texts> {
        let (ids, id) = ([1, 2, 3].map(NodeId), NodeId(nth as u64 + 1));
        let node = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, ""))).seed(id.0);
        let node = node.network(self.network.endpoint(id)).storage(Memory::shared(&self.logs[nth]));
        node.timing(Timing::default()).serve(Texts::default).start_local().await.expect("a node")
    }

    async fn restart(&mut self, nth: usize) {
        soon("the end", self.nodes[nth].shutdown()).await;
        self.nodes[nth] = self.start_one(nth).await;
    }

    /// Through a session, so that it may be sent while a leader is lost.
    async fn append(&self, nth: usize, text: &str) -> usize {
        let session = soon("a session", self.nodes[nth].session()).await.expect("a session");
        let applied = soon("an answer", session.call(Command::Append(text.into()))).await;
        applied.expect("it is applied").reply
    }

    async fn texts(&self, nth: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(text) = self.text(nth, texts.len()).await {
            texts.push(text);
        }
        texts
    }

    async fn text(&self, nth: usize, of: usize) -> Option<String> {
        soon("an answer", self.nodes[nth].query(of).into_future()).await.expect("it is served").value
    }
}

#[test]
fn calls_are_applied_in_order_and_every_node_answers_queries() {
    simulate(async {
        let three = Three::start().await;
        for (nth, text) in ["a", "b", "c"].into_iter().enumerate() {
            let call = three.nodes[nth].call(Command::Append(text.into()));
            assert_eq!(soon("an answer", call.into_future()).await.expect("it is applied").reply, nth + 1);
        }
        for nth in 0..3 {
            assert_eq!(three.text(nth, 2).await.as_deref(), Some("c"));
        }
        let old = three.nodes[0].query(0).consistency(Consistency::Local).within(Duration::from_secs(1)).await;
        assert_eq!(old.expect("it is served").value.as_deref(), Some("a"));
    });
}

#[test]
fn a_command_that_the_cluster_is_too_old_for_and_bytes_that_are_none_are_refused() {
    simulate(async {
        let three = Three::start().await;
        let refused = three.nodes[1].call(Command::Clear).await;
        assert!(matches!(refused, Err(CallError::Refused(Refused::TooNew { needs: 2, .. }))), "{refused:?}");
        let outcome = three.nodes[1].propose("no command").await.expect("it is applied").reply;
        assert_eq!(Hosted::<Texts>::decode(&outcome), Some(Err(Refused::Unreadable)));
        let large = three.nodes[1].call(Command::Append("x".repeat(64 << 20))).await;
        assert!(matches!(large, Err(CallError::TooLarge { .. })), "{large:?}");
        assert_eq!(three.append(1, "a").await, 1, "they left nothing behind");
    });
}

#[test]
fn a_session_applies_a_command_once_and_remembers_a_refusal() {
    simulate(async {
        let three = Three::start().await;
        let session = three.nodes[0].session().await.expect("a session");
        assert_eq!(session.call(Command::Append("a".into())).await.expect("it is applied").reply, 1);
        let key = SessionKey::named(b"me").expect("a name");
        for node in &three.nodes {
            let again = node.call(Command::Append("b".into())).numbered(&key, 1).await;
            assert_eq!(again.expect("its first reply").reply, 2);
        }
        let clear = || three.nodes[2].call(Command::Clear).numbered(&key, 2);
        let first = clear().await;
        assert!(matches!(first, Err(CallError::Refused(Refused::TooNew { needs: 2, .. }))), "{first:?}");
        assert_eq!(clear().await, first);
        assert_eq!(three.text(1, 1).await.as_deref(), Some("b"));
        assert_eq!(three.text(1, 2).await, None);
    });
}

#[test]
fn a_service_sees_the_session_of_a_command_on_every_node_alike() {
    simulate(async {
        let mut three = Three::start().await;
        three.nodes[0].call(Command::Introduce).await.expect("it is applied");
        let key = SessionKey::named(b"me").expect("a name");
        for node in &three.nodes {
            node.call(Command::Introduce).numbered(&key, 1).await.expect("it is applied");
        }
        three.nodes[1].session().await.expect("a session").call(Command::Introduce).await.expect("it is applied");
        let texts = three.texts(0).await;
        assert_eq!((&texts[0][..], &texts[1]), ("None", &format!("{:?}", Some(&key))));
        assert!(texts[2].contains("Some") && texts[2] != texts[1], "{texts:?}");
        three.restart(1).await;
        assert_eq!((three.texts(1).await, three.texts(2).await), (texts.clone(), texts));
    });
}

#[test]
fn a_node_comes_back_with_its_state_from_the_log_and_from_a_snapshot() {
    simulate(async {
        let mut three = Three::start().await;
        three.append(0, "a").await;
        three.restart(0).await;
        assert_eq!(three.text(0, 0).await.as_deref(), Some("a"));
        three.append(0, "b").await;
        for nth in 0..3 {
            soon("a snapshot", three.nodes[nth].snapshot()).await.expect("it is written");
        }
        three.append(0, "c").await;
        for nth in 0..3 {
            three.restart(nth).await;
        }
        assert_eq!(three.append(1, "d").await, 4);
        assert_eq!(three.text(2, 1).await.as_deref(), Some("b"));
    });
}

#[test]
fn timers_fire_once_on_every_node_at_equal_times_through_restarts_and_lost_leaders() {
    simulate(async {
        let mut three = Three::start().await;
        let session = three.nodes[0].session().await.expect("a session");
        session.call(Command::Every(5_000, 4, "tick".into())).await.expect("it is applied");
        for round in 0..4 {
            if round == 1 {
                soon("a snapshot", three.nodes[1].snapshot()).await.expect("it is written");
            }
            sleep(Duration::from_millis(2_500)).await;
            let leader = three.nodes.iter().position(|node| node.status().borrow().role == NodeRole::Leader);
            three.restart(leader.unwrap_or(round % 3)).await;
            // A new leader counts on from what it heard; without one log time stands still.
            sleep(Duration::from_millis(3_500)).await;
        }
        sleep(Duration::from_secs(10)).await;
        let texts: Vec<_> = [three.texts(0).await, three.texts(1).await, three.texts(2).await].into();
        assert_eq!(texts[0].len(), 4, "each fired once: {texts:?}");
        assert!(texts.iter().all(|of| *of == texts[0]), "{texts:?}");
        let times: Vec<u64> =
            texts[0].iter().map(|text| text.trim_start_matches("tick at ").parse().expect("a time")).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 5_000), "a periodic timer does not drift: {times:?}");
    });
}

#[test]
fn a_query_that_panics_is_an_error_and_the_node_goes_on() {
    simulate(async {
        let three = Three::start().await;
        let error = three.nodes[0].query(1_000).await.expect_err("it panics");
        assert_eq!(error, QueryError::Panicked { message: "no text has this number".into() });
        assert_eq!(three.append(0, "a").await, 1);
    });
}

#[test]
fn a_command_that_panics_halts_its_nodes_at_the_entry_by_name() {
    simulate(async {
        let three = Three::start().await;
        three.append(0, "a").await;
        let index = three.nodes[0].query(0).await.expect("it is served").index;
        let outcome = three.nodes[0].call(Command::Panic).await;
        assert_eq!(outcome, Err(CallError::OutcomeUnknown));
        for node in &three.nodes {
            let mut status = node.status();
            let status = soon("the halt", status.wait_for(|status| status.halted.is_some())).await.expect("it runs");
            let halted = status.halted.as_ref().expect("it halted");
            assert!(halted.entry.index > index && halted.can_be_skipped);
            assert_eq!(halted.cause, HaltCause::Panicked { message: "as it was told".into() });
        }
        let at = three.nodes[0].status().borrow().halted.as_ref().expect("it halted").entry.index;
        let refused = three.nodes[0].query(0).await.expect_err("no state to query");
        assert_eq!(refused, QueryError::Read(ReadError::Halted { at }));
    });
}

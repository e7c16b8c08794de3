//! Scripted clusters, in `scripts/*.txt`: commands, each followed by its expected output, indented.
//!
//! | command | effect |
//! | --- | --- |
//! | `cluster N` | N nodes with empty disks, started by `start` |
//! | `disk N term T log TERM...` | the disk with which node N starts |
//! | `start` | starts all nodes |
//! | `watch votes`, `appends`, `heartbeats`, `nothing` | the kinds of messages to print on arrival, from now on |
//! | `cut A B`, `cut A > B`, `isolate A`, `heal` | links |
//! | `stick A`, `free A` | whether A's disk finishes writes |
//! | `pass MS` | time passes |
//! | `timeout A`, `beat A`, `propose A COUNT`, `read A TOKEN` | an event at A; no message arrives yet |
//! | `settle` | every message in flight arrives and is handled |
//! | `elect A` | no leader is heard for a while, A times out, everything settles |
//! | `crash A`, `restart A` | A loses all but its disk; it starts again |
//! | `show` | prints a line per node |
//!
//! The safety invariants are checked after every step. `QUORATE_BLESS=1 cargo test --test scripts`
//! writes the actual output into the scripts; read the difference before you keep it.

use quorate_raft::{AppendOutcome, Body, Message, NodeId, Phase, Role};
use quorate_world::{
    disk::Disk,
    events::Event,
    fixtures::{disk_of, settings},
    world::World,
};
use std::{env, fmt::Write as _, fs, path::Path};

#[test]
fn every_story_goes_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> =
        fs::read_dir(folder).expect("the scripts").map(|file| file.expect("a file").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let told = fs::read_to_string(&path).expect("a script");
        let happened = Story::default().tell(&told);
        if env::var_os("QUORATE_BLESS").is_some() {
            fs::write(&path, happened).expect("a writable script");
        } else if let Some((line, (told, happened))) =
            (1..).zip(told.lines().zip(happened.lines())).find(|(_, (told, happened))| told != happened)
        {
            panic!("{}:{line}: told\n{told}\nbut it went\n{happened}", path.display());
        } else {
            assert_eq!(told.lines().count(), happened.lines().count(), "{}", path.display());
        }
    }
}

#[derive(Default)]
struct Story {
    disks: Vec<Disk>,
    world: Option<World>,
    watched: String,
}

impl Story {
    /// The script again, with the output that its commands print now.
    fn tell(&mut self, script: &str) -> String {
        let mut happened = String::new();
        for line in script.lines().filter(|line| !line.starts_with("    ")) {
            let _ = writeln!(happened, "{line}");
            if !line.is_empty() && !line.starts_with('#') {
                for printed in self.perform(line) {
                    let _ = writeln!(happened, "    {printed}");
                }
            }
        }
        happened
    }

    fn perform(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("{line}: a number is expected"));
        match words[..] {
            ["cluster", _] => self.disks = vec![Disk::default(); number(1) as usize],
            ["disk", _, "term", _, "log", ..] => {
                let terms: Vec<u64> = (5..words.len()).map(number).collect();
                self.disks[number(1) as usize - 1] = disk_of(number(3), None, &terms);
            }
            ["start"] => self.world = Some(World::with(self.disks.clone(), settings())),
            ["watch", what] => self.watched = what.into(),
            _ => return self.happen(line, &words, number),
        }
        Vec::new()
    }

    fn happen(&mut self, line: &str, words: &[&str], number: impl Fn(usize) -> u64) -> Vec<String> {
        let world = self.world.as_mut().unwrap_or_else(|| panic!("{line}: before `start`"));
        let id = || NodeId(number(1));
        match *words {
            ["cut", _, ">", _] => world.cut_way(number(1), number(3)),
            ["cut", _, _] => world.cut_link(number(1), number(2)),
            ["isolate", _] => world.isolate(number(1)),
            ["heal"] => world.heal(),
            ["stick", _] => {
                world.stuck.insert(id());
            }
            ["free", _] => {
                world.stuck.remove(&id());
            }
            ["pass", _] => world.pass(number(1)),
            ["timeout", _] => world.must(Event::Timeout(id())),
            ["beat", _] => world.must(Event::Heartbeat(id())),
            ["propose", _, _] => world.must(Event::Propose(id(), number(2))),
            ["read", _, _] => world.must(Event::Read(id(), number(2))),
            ["crash", _] => world.must(Event::Crash(id(), None)),
            ["restart", _] => world.must(Event::Restart(id())),
            ["elect", _] => {
                world.pass(400);
                world.must(Event::Timeout(id()));
                return self.settle();
            }
            ["settle"] => return self.settle(),
            ["show"] => return world.ids().map(|id| show(world, id)).collect(),
            _ => panic!("{line}: no such command"),
        }
        Vec::new()
    }

    /// The watched messages that arrived, and the reads that were answered.
    fn settle(&mut self) -> Vec<String> {
        let world = self.world.as_mut().expect("it was started");
        let arrived = world.settle();
        let watched = arrived.iter().filter_map(|(from, to, message)| {
            let (kind, said) = say(message)?;
            (kind == self.watched).then(|| format!("{from} -> {to}: {said}"))
        });
        let mut printed: Vec<_> = watched.collect();
        let (ready, failed) = world.answered_reads();
        printed.extend(ready.into_iter().map(|(token, index)| format!("read {token} is served at {index}")));
        printed.extend(failed.into_iter().map(|token| format!("read {token} fails")));
        printed
    }
}

/// A line about a node: its role, its term, its log's terms, and its commit index.
fn show(world: &World, id: NodeId) -> String {
    let Some(running) = world.running(id) else { return format!("{id} is down") };
    let replica = &running.replica;
    let role = match replica.role() {
        Role::Follower => replica.leader().map_or("waits for a leader".into(), |leader| format!("follows {leader}")),
        Role::PreCandidate => "asks whether it may campaign".into(),
        Role::Candidate => "campaigns".into(),
        Role::Leader(_) => "leads".into(),
    };
    let terms: Vec<_> = world.log(id.0).iter().map(u64::to_string).collect();
    format!("{id} {role} in term {}, log {}, committed {}", replica.term(), terms.join(" "), replica.commit())
}

/// The text of a message, and its kind.
fn say(message: &Message) -> Option<(&'static str, String)> {
    let term = message.term;
    Some(match &message.body {
        Body::RequestVote(asked) if asked.phase == Phase::PreVote => {
            ("votes", format!("would you vote for me behind term {term}? My log ends at {}", asked.last))
        }
        Body::RequestVote(asked) => ("votes", format!("vote for me in term {term}; my log ends at {}", asked.last)),
        Body::Vote(vote) => {
            let answer = if vote.granted() { "yes" } else { "no" };
            let phase = if vote.phase == Phase::PreVote { "I would" } else { "my vote" };
            ("votes", format!("{phase}: {answer} (term {term})"))
        }
        Body::Append(append) => {
            let entries = append.batch.as_ref().map_or("nothing".into(), |batch| match batch.count() {
                1 => batch.last_id().to_string(),
                _ => format!("{} to {}", batch.first(), batch.last_id()),
            });
            ("appends", format!("append {entries} behind {}", append.previous))
        }
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { matched } => ("appends", format!("matched up to {matched}")),
            AppendOutcome::Rejected { previous, conflict, last, .. } => {
                let hint = format!("there I have term {} from {} on, and end at {last}", conflict.term, conflict.index);
                ("appends", format!("no {previous}: {hint} (term {term})"))
            }
            AppendOutcome::Diverged { at } => ("appends", format!("my {at} is another (term {term})")),
            AppendOutcome::NeedsSnapshot { from } => {
                ("appends", format!("I need a snapshot up to {from} (term {term})"))
            }
        },
        Body::Heartbeat(heartbeat) => {
            ("heartbeats", format!("I lead term {term}; round {}, commit {}", heartbeat.round, heartbeat.commit))
        }
        Body::HeartbeatReply(reply) => ("heartbeats", format!("round {} heard (term {term})", reply.round)),
        _ => return None,
    })
}

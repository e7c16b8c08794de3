//! A survey changes nothing; a new directory is whole, or refused.

use super::*;
use crate::{
    contract::{Recovered, SnapshotSource, StorageError, Unobserved},
    disk::Disk,
    snapshots::{Backup, Export},
    wal::{Sizes, Wal, log::Log},
};
use quorate_raft::{
    Batch, BatchBuilder, ClusterId, Cut, EntryId, HardState, Index, Kind, Membership, NodeId, Persist, SnapshotBase,
    Term,
    internal::{self, Purpose},
    record::Record,
};
use quorate_storage_testing::{Crash, Operation, SimulatedDisk};
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

const SIZES: Sizes = Sizes { segment: 16 << 10, gap: 512, headroom: 1 << 10, has_slots: true };
const PAYLOAD: usize = 300;
/// The generation of the new cluster.
const NOW: u32 = 1_700_000_000;

#[test]
fn a_survey_finds_what_a_start_would_find_and_changes_no_byte() {
    let disk = SimulatedDisk::new();
    let mut member = Member::new(&disk, "1", 1);
    member.append(1, 100);
    member.snapshot(30, b"the state");
    member.cut(10);
    member.append(2, 60);
    // All that a start may find: a torn write, unfinished snapshots and files, a damaged header and
    // a damaged slot.
    member.tear(&disk, 100);
    let is_used = |path: &PathBuf| disk.contents(path).is_some_and(|bytes| bytes.starts_with(b"QUORSEGM"));
    let newest = paths(&disk, "1", "segment").into_iter().rfind(is_used).expect("a segment");
    assert!(disk.flip(&newest, 100, 1) && disk.flip(&newest, 8192 + 10, 1));
    for name in ["3.snapshot.new", "spare", "known-members.new"] {
        disk.put(&Path::new("1").join(name), vec![1; 100]);
    }
    let before = contents(&disk);
    let twin = disk.fork();

    let survey = survey(&disk, "1");
    assert_eq!((survey.cluster(), survey.member(), survey.term()), ("old", NodeId(1), Term(9)));
    assert_eq!(survey.membership(), Some(&voters(&[1, 2, 3])));
    let (_, found) = open(&twin, "1", "old", 1).expect("it opens");
    assert!(found.repairs.len() >= 3, "{:?}", found.repairs);
    assert_eq!(survey.found(), &found);
    assert_ne!(contents(&twin), before, "a start does change it");
    let all = survey.read(Index(31), survey.last().index, 1 << 20).expect("it can be read");
    assert_eq!(all.iter().map(|batch| u64::from(batch.count())).sum::<u64>(), 130);
    assert_eq!(contents(&disk), before);
    drop(survey);
    assert_eq!(contents(&disk), before);
}

#[test]
fn a_directory_that_a_node_runs_on_is_refused_and_a_surveyed_one_is_not_started() {
    let disk = SimulatedDisk::new();
    let member = Member::new(&disk, "1", 1);
    assert!(in_use(&disk, "1"));
    member.stop();
    let survey = survey(&disk, "1");
    assert!(in_use(&disk, "1") && open(&disk, "1", "old", 1).is_err());
    drop(survey);
    assert!(open(&disk, "1", "old", 1).is_ok());
}

#[test]
fn a_directory_of_no_member_is_refused_and_stays_as_it_is() {
    let disk = SimulatedDisk::new();
    assert!(unusable(Survey::on(Arc::new(disk.clone()), "1")).contains("no whole data directory"));
    disk.put(Path::new("2/photo"), b"jpeg".to_vec());
    let before = contents(&disk);
    assert!(unusable(Survey::on(Arc::new(disk.clone()), "2")).contains("no whole data directory"));
    assert_eq!(contents(&disk), before);
    let gone = tempfile::tempdir().expect("a directory").path().join("gone");
    assert!(unusable(Survey::of(&gone)).contains("gone"));
    assert!(!gone.exists());
}

#[test]
fn a_witnesss_directory_is_refused_as_one_that_keeps_no_commands_and_says_how_far_it_reached() {
    let disk = SimulatedDisk::new();
    Member::new(&disk, "1", 1).grown(2, 14).stop();
    let mut witness = Member::new(&disk, "3", 3);
    for batch in Member::new(&disk, "2", 2).grown(2, 15).entries {
        witness.persist(Persist { batch: Some(batch.to_stubs(crate::checksum)), ..Persist::default() });
    }
    witness.stop();
    let said = unusable(Survey::on(Arc::new(disk.clone()), "3"));
    assert!(said.contains("is of a witness") && said.contains("entry 15@2"), "{said}");
    survey(&disk, "1");

    // A member that knows its own part alone.
    let mut joined = Member::new(&disk, "4", 4);
    let mut batch = BatchBuilder::new(crate::checksum, Term(1), Index(1), 0, 0);
    batch.push(Kind::Membership, &voters(&[1, 2, 4]).with_witness(Some(NodeId(4))).encode());
    joined.persist(Persist { batch: batch.finish(), ..Persist::default() });
    joined.stop();
    assert!(unusable(Survey::on(Arc::new(disk), "4")).contains("is of a witness"));
}

#[test]
fn a_log_whose_term_and_vote_are_lost_can_still_be_taken_for_another_cluster() {
    let disk = SimulatedDisk::new();
    let mut member = Member::new(&disk, "1", 1).grown(2, 60);
    member.vote(7, 2);
    let commands = member.commands(0);
    member.stop();
    let path = Path::new("1/hard-state");
    let bytes = disk.contents(path).expect("it is there");
    for is_gone in [false, true] {
        let disk = disk.fork();
        match is_gone {
            true => disk.remove(path).expect("removed"),
            false => disk.put(path, vec![0; bytes.len()]),
        }
        assert!(open(&disk, "1", "old", 1).is_err(), "a member must not start without");
        let before = contents(&disk);
        let surveys = [survey(&disk, "1")];
        assert_eq!((surveys[0].cluster(), surveys[0].member(), surveys[0].term()), ("old", NodeId(1), Term(2)));
        assert!(surveys[0].found().repairs[0].contains("term and vote are lost"));
        let choice = Choice::of(&surveys, None).expect("a choice");
        let made = transplant(&choice, &wal(&disk, "new"), &to()).expect("it is made");
        assert_eq!(made.last, EntryId::new(Term(3), Index(62)));
        let (log, _) = open(&disk, "new", "new", 9).expect("it opens");
        assert_eq!(commands_of(&log, Index(1), Index(60)), commands);
        assert!(before.iter().all(|(path, bytes)| disk.contents(path).as_ref() == Some(bytes)));
    }
}

#[test]
fn the_log_with_the_highest_term_is_the_most_advanced_and_of_those_the_longest() {
    let disk = SimulatedDisk::new();
    for (dir, terms) in [("1", &[(1, 50)][..]), ("2", &[(1, 10), (2, 5)]), ("3", &[(1, 10), (2, 6)])] {
        let mut member = Member::new(&disk, dir, dir.parse().expect("a number"));
        terms.iter().for_each(|(term, count)| member.append(*term, *count));
        member.vote(5, 1);
        member.stop();
    }
    let surveys = ["1", "2", "3"].map(|dir| survey(&disk, dir));
    let choice = Choice::of(&surveys, None).expect("a choice");
    assert_eq!(choice.chosen().dir(), Path::new("3"));
    assert_eq!((choice.last(), choice.term()), (EntryId::new(Term(2), Index(16)), Term(5)));
    assert_eq!(Choice::of(&surveys[..2], None).expect("a choice").chosen().dir(), Path::new("2"));
    assert!(refused(Choice::of(&[], None)).contains("no data directory"));
}

#[test]
fn directories_of_two_clusters_or_two_histories_are_refused() {
    let disk = SimulatedDisk::new();
    Member::of_cluster(&disk, "other", "4", 4).grown(1, 3).stop();
    Member::new(&disk, "1", 1).grown(1, 9).stop();
    let surveys = ["1", "4"].map(|dir| survey(&disk, dir));
    let line = refused(Choice::of(&surveys, None));
    assert!(line.contains("\"old\"") && line.contains("\"other\""), "{line}");

    let mut forked = Member::new(&disk, "5", 5);
    forked.append(1, 2);
    forked.append(2, 3);
    forked.snapshot(4, b"another past");
    forked.stop();
    Member::new(&disk, "6", 6).grown(3, 9).stop();
    let surveys = ["5", "6"].map(|dir| survey(&disk, dir));
    assert!(refused(Choice::of(&surveys, None)).contains("different histories"));
    Member::new(&disk, "7", 7).stop();
    assert!(refused(Choice::of(&[survey(&disk, "7")], None)).contains("nothing to recover"));
}

#[test]
fn a_new_directory_has_every_entry_and_one_voter_and_opens_as_another_cluster_alone() {
    for (snapshot_at, is_cut) in [(0, false), (30, false), (30, true), (100, true)] {
        let disk = SimulatedDisk::new();
        let mut member = Member::new(&disk, "1", 1);
        member.append(1, 100);
        if snapshot_at > 0 {
            member.snapshot(snapshot_at, &state(700_000));
        }
        if is_cut {
            member.cut(snapshot_at);
        }
        member.append(4, 40);
        let commands = member.commands(snapshot_at);
        member.stop();
        let before = contents(&disk);
        let surveys = [survey(&disk, "1")];
        let choice = Choice::of(&surveys, None).expect("a choice");
        let made = transplant(&choice, &wal(&disk, "new"), &to()).expect("it is made");
        assert_eq!(made.kept, EntryId::new(Term(4), Index(140)));
        assert_eq!(made.last, EntryId::new(Term(5), Index(142)));

        let (log, found) = open(&disk, "new", "new", 9).expect("it opens");
        assert_eq!((found.hard_state, found.has_voted), (HardState::new(Term(5), None), false));
        assert_eq!((found.base.index, found.last), (Index(snapshot_at), made.last));
        assert_eq!(found.memberships, [(Index(142), alone())], "no other configuration is left in the log");
        assert_eq!(
            found.snapshot.as_ref().map(|snapshot| &snapshot.base.membership),
            (snapshot_at > 0).then_some(&alone())
        );
        assert_eq!((&found.faulty, &found.repairs), (&vec![], &vec![]));
        assert_eq!(commands_of(&log, Index(snapshot_at + 1), made.kept.index), commands);
        if snapshot_at > 0 {
            assert!(read(log.snapshots().open_newest().expect("there")) == state(700_000));
        }
        drop(log);
        let other =
            |cluster, member| open(&disk, "new", cluster, member).map(drop).expect_err("it is another's").to_string();
        assert!(other("old", 1).contains("belongs to member 9 of cluster \"new\""));
        assert!(other("new", 1).contains("belongs to member 9 of cluster \"new\""));
        drop(surveys);
        let line = open(&disk, "1", "new", 1).map(drop).expect_err("the old one stays the old cluster's").to_string();
        assert!(line.contains("belongs to member 1 of cluster \"old\""), "{line}");
        let left: BTreeMap<_, _> =
            before.keys().filter_map(|path| Some((path.clone(), disk.contents(path)?))).collect();
        assert_eq!(left, before);
    }
}

#[test]
fn a_new_directory_keeps_its_name_and_its_place_to_itself() {
    let disk = SimulatedDisk::new();
    Member::new(&disk, "1", 1).grown(1, 9).stop();
    let surveys = [survey(&disk, "1")];
    let choice = Choice::of(&surveys, None).expect("a choice");
    let before = contents(&disk);
    let same = NewMember { cluster: "old".into(), ..to() };
    assert!(refused(transplant(&choice, &wal(&disk, "new"), &same)).contains("choose another name"));
    disk.put(Path::new("full/photo"), b"jpeg".to_vec());
    assert!(refused(transplant(&choice, &wal(&disk, "full"), &to())).contains("\"photo\""));
    assert!(refused(transplant(&choice, &wal(&disk, "1"), &to())).contains("not empty"));
    let mut after = contents(&disk);
    after.remove(Path::new("full/photo"));
    assert_eq!(after, before);
    transplant(&choice, &wal(&disk, "new"), &to()).expect("it is made");
    assert!(refused(transplant(&choice, &wal(&disk, "new"), &to())).contains("not empty"));
}

#[test]
fn entries_that_one_disk_lost_come_from_another_or_are_refused_by_name() {
    let disk = SimulatedDisk::new();
    Member::new(&disk, "1", 1).grown(1, 20).grown(2, 20).stop();
    Member::new(&disk, "2", 2).grown(1, 20).grown(2, 10).stop();
    let mut third = Member::new(&disk, "3", 3).grown(1, 20);
    let commands = third.commands(0);
    third.snapshot(12, b"the state");
    third.stop();
    let lose = |dir: &str, index: u64| lose(&disk, dir, &commands[&Index(index)]);
    lose("1", 5);
    lose("1", 15);
    lose("1", 16);

    let (one, two) = (survey(&disk, "1"), survey(&disk, "2"));
    let surveys = [one, two];
    let choice = Choice::of(&surveys, None).expect("a choice");
    let from = |index| Healed { id: EntryId::new(Term(1), Index(index)), from: "2".into() };
    assert_eq!(choice.healed(), [from(5), from(15), from(16)]);
    transplant(&choice, &wal(&disk, "a"), &to()).expect("it is made");
    let (log, _) = open(&disk, "a", "new", 9).expect("it opens");
    let all = commands_of(&log, Index(1), Index(20));
    assert_eq!(all, commands);

    // A snapshot replaces the entries that it covers.
    let [one, _] = surveys;
    let surveys = [one, survey(&disk, "3")];
    let choice = Choice::of(&surveys, None).expect("a choice");
    assert_eq!(choice.snapshot().map(|(dir, _)| dir), Some(Path::new("3")));
    assert_eq!(choice.healed().len(), 2);
    transplant(&choice, &wal(&disk, "b"), &to()).expect("it is made");

    let [one, _] = surveys;
    let alone = [one];
    let line = refused(Choice::of(&alone, None));
    assert!(line.contains("entry 5@1 of 1") && line.contains("--up-to 4"), "{line}");
    let choice = Choice::of(&alone, Some(Index(4))).expect("a choice");
    let made = transplant(&choice, &wal(&disk, "c"), &to()).expect("it is made");
    assert_eq!((made.kept.index, made.last), (Index(4), EntryId::new(Term(3), Index(6))));
}

#[test]
fn a_log_whose_beginning_is_gone_needs_a_snapshot_of_another() {
    let disk = SimulatedDisk::new();
    let mut first = Member::new(&disk, "1", 1).grown(1, 90);
    first.snapshot(70, b"the state");
    first.cut(70);
    first.stop();
    let snapshot = paths(&disk, "1", "snapshot").pop().expect("a snapshot");
    assert!(disk.flip(&snapshot, 600, 1));
    let mut second = Member::new(&disk, "2", 2).grown(1, 80);
    second.snapshot(75, b"the state");
    second.stop();
    let (one, two) = (survey(&disk, "1"), survey(&disk, "2"));
    let surveys = [one];
    assert!(refused(Choice::of(&surveys, None)).contains("the state is lost"));
    let [one] = surveys;
    let surveys = [one, two];
    let choice = Choice::of(&surveys, None).expect("a choice");
    assert_eq!(choice.chosen().dir(), Path::new("1"));
    assert!(refused(Choice::of(&surveys, Some(Index(74)))).contains("name 75 or more"));
    transplant(&choice, &wal(&disk, "new"), &to()).expect("it is made");
    assert_eq!(open(&disk, "new", "new", 9).expect("it opens").1.base.index, Index(75));
}

#[test]
fn after_a_crash_at_any_operation_the_new_directory_is_empty_refused_or_whole() {
    let disk = SimulatedDisk::new();
    let mut member = Member::new(&disk, "1", 1).grown(1, 60);
    member.snapshot(20, &state(600_000));
    member.append(3, 60);
    member.stop();
    let whole = {
        let disk = disk.fork();
        let surveys = [survey(&disk, "1")];
        let choice = Choice::of(&surveys, None).expect("a choice");
        transplant(&choice, &wal(&disk, "new"), &to()).expect("it is made");
        open(&disk, "new", "new", 9).expect("it opens").1
    };
    let crashes = [Crash::Lose, Crash::Keep].into_iter().chain((0..8).map(|seed| Crash::Scatter { seed }));
    let crashes: Vec<_> = crashes.collect();
    let (mut outcomes, mut ended) = ([0; 3], false);
    for nth in 1.. {
        let disk = disk.fork();
        let result = {
            let surveys = [survey(&disk, "1")];
            let choice = Choice::of(&surveys, None).expect("a choice");
            disk.halt_at(nth);
            transplant(&choice, &wal(&disk, "new"), &to())
        };
        if !disk.is_halted() {
            result.expect("nothing happened to it");
            ended = true;
            break;
        }
        assert!(result.is_err(), "operation {nth} failed");
        for crash in &crashes {
            let disk = disk.fork();
            disk.crash(*crash);
            let is_empty = contents(&disk).keys().all(|path| path.starts_with("1"));
            let context = format!("{crash:?} at operation {nth}");
            match open(&disk, "new", "new", 9) {
                Ok(_) if is_empty => outcomes[0] += 1,
                Ok((log, found)) => {
                    assert_eq!(Recovered { repairs: vec![], ..found }, whole, "{context}");
                    assert!(read(log.snapshots().open_newest().expect("there")) == state(600_000), "{context}");
                    outcomes[2] += 1;
                }
                Err(error) => {
                    let line = error.to_string();
                    assert!(line.contains("never finished") && line.lines().count() == 1, "{context}: {line}");
                    let surveys = [survey(&disk, "1")];
                    let choice = Choice::of(&surveys, None).expect("a choice");
                    assert!(refused(transplant(&choice, &wal(&disk, "new"), &to())).contains("not empty"), "{context}");
                    outcomes[1] += 1;
                }
            }
        }
    }
    assert!(ended && outcomes[0] > 0 && outcomes[1] > 100 && outcomes[2] > 0, "all of it happens: {outcomes:?}");
}

#[test]
fn a_failure_is_reported_in_one_line_and_a_left_directory_is_refused() {
    let disk = SimulatedDisk::new();
    let mut member = Member::new(&disk, "1", 1).grown(1, 60);
    member.snapshot(20, &state(600_000));
    member.stop();
    let mut failures = 0;
    for operation in [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename] {
        for nth in 1.. {
            let disk = disk.fork();
            let surveys = [survey(&disk, "1")];
            let choice = Choice::of(&surveys, None).expect("a choice");
            disk.fail(operation, nth);
            let Err(error) = transplant(&choice, &wal(&disk, "new"), &to()) else { break };
            let line = error.to_string();
            disk.forget_plans();
            assert_eq!(line.lines().count(), 1, "{line}");
            // Except for the first steps, before any file exists, and the last, after all others.
            if let Ok((_, found)) = open(&disk, "new", "new", 9) {
                assert_eq!(found.last.index, Index(62), "{operation:?} {nth}");
            }
            failures += 1;
        }
    }
    assert!(failures > 15, "{failures}");
}

#[test]
fn a_backup_restores_its_state_under_another_name_alone() {
    let disk = SimulatedDisk::new();
    for bytes in [0, 1, 262_144, 700_000] {
        let dir = format!("{bytes}");
        let mut member = Member::new(&disk, &dir, 1).grown(2, 40);
        member.snapshot(40, &state(bytes));
        let source = member.log.snapshots().open_newest().expect("there is one");
        let export = Export::new(source, "old", NodeId(1)).expect("a name that fits");
        let file: Result<Vec<_>, _> = export.collect();
        disk.put(Path::new("backups/one"), file.expect("it can be read").concat());
        let backup = Backup::open_on(&disk, "backups/one").expect("it is whole");
        let same = NewMember { cluster: "old".into(), ..to() };
        let again = Backup::open_on(&disk, "backups/one").expect("it is whole");
        let into = wal(&disk, &format!("restored-{bytes}"));
        assert!(refused(restore(again, &into, &same)).contains("choose another name"));
        let made = restore(backup, &into, &to()).expect("it is made");
        assert_eq!(made.kept, EntryId::new(Term(2), Index(40)));
        let (log, found) = open(&disk, &format!("restored-{bytes}"), "new", 9).expect("it opens");
        assert_eq!((found.base, found.last), (made.kept, EntryId::new(Term(3), Index(42))));
        assert_eq!(found.memberships, [(Index(42), alone())]);
        assert!(read(log.snapshots().open_newest().expect("there")) == state(bytes));
    }
}

#[test]
fn the_generation_is_the_clocks_or_one_above_the_old_one_and_those_in_the_log_stay() {
    let disk = SimulatedDisk::new();
    let mut member = Member::new(&disk, "1", 1).grown(1, 9);
    member.snapshot(5, b"the state");
    member.stop();
    let recover = |from: &str, into: &str, seconds: u64| {
        let surveys = [survey(&disk, from)];
        transplant(&Choice::of(&surveys, None).expect("a choice"), &wal(&disk, into), &at(into, seconds))
    };
    let first = recover("1", "a", NOW.into()).expect("it is made").cluster_id;
    assert_eq!(first, ClusterId::new(NOW, 99));
    let second = recover("a", "b", 5).expect("it is made").cluster_id;
    assert_eq!(second.generation(), NOW + 1, "the clock is behind");
    let (log, found) = open(&disk, "b", "b", 9).expect("it opens");
    assert_eq!(found.last.index, Index(13));
    assert_eq!(generations_in(&log, &found), [(Index(10), NOW), (Index(12), NOW + 1)], "the log is applied as it was");

    // A backup states it as well.
    let source = log.snapshots().open_newest().expect("there is one");
    let file: Result<Vec<_>, _> = Export::new(source, "b", NodeId(9)).expect("a name that fits").collect();
    disk.put(Path::new("backups/one"), file.expect("it can be read").concat());
    drop(log);
    let again = |into: &str, seconds: u64| {
        let backup = Backup::open_on(&disk, "backups/one").expect("it is whole");
        restore(backup, &wal(&disk, into), &at(into, seconds))
    };
    assert_eq!(again("c", 5).expect("it is made").cluster_id.generation(), NOW + 2);
    let (log, found) = open(&disk, "c", "c", 9).expect("it opens");
    assert_eq!(generations_in(&log, &found), [(Index(6), NOW + 2)]);

    assert!(refused(again("d", 1 << 32)).contains("after 2106"));
    let before = NewMember { now: UNIX_EPOCH - Duration::from_secs(1), ..at("d", 0) };
    let backup = Backup::open_on(&disk, "backups/one").expect("it is whole");
    assert!(refused(restore(backup, &wal(&disk, "d"), &before)).contains("before 1970"));
    again("d", u32::MAX.into()).expect("nothing was left there");
    assert!(refused(recover("d", "e", NOW.into())).contains("none above it"));
}

/// A member of the old cluster, running.
struct Member {
    log: Log,
    last: (EntryId, u32),
    entries: Vec<Batch>,
}

impl Member {
    fn new(disk: &SimulatedDisk, dir: &str, id: u64) -> Self {
        Self::of_cluster(disk, "old", dir, id)
    }

    fn of_cluster(disk: &SimulatedDisk, cluster: &str, dir: &str, id: u64) -> Self {
        let (log, _) = open(disk, dir, cluster, id).expect("it opens");
        Self { log, last: Default::default(), entries: Vec::new() }
    }

    fn grown(mut self, term: u64, count: u64) -> Self {
        self.append(term, count);
        self
    }

    /// Appends commands, with a configuration at every tenth entry; the same on every member, each
    /// with a sync of its own.
    fn append(&mut self, term: u64, count: u64) {
        for _ in 0..count {
            let index = self.last.0.index.next();
            let mut batch = BatchBuilder::new(crate::checksum, Term(term), index, self.last.1, 0);
            match index.0 % 10 {
                0 => batch.push(Kind::Membership, &voters(&[1, 2, 3]).encode()),
                _ => batch.push(Kind::Command, &payload(term, index.0)),
            }
            let batch = batch.finish().expect("an entry");
            self.last = (batch.last_id(), batch.checksum());
            self.entries.push(batch.clone());
            self.persist(Persist { batch: Some(batch), ..Persist::default() });
        }
        self.log.settle().expect("there is time");
    }

    fn vote(&mut self, term: u64, vote: u64) {
        let hard_state = Some(HardState::new(Term(term), Some(NodeId(vote))));
        self.persist(Persist { hard_state, ..Persist::default() });
    }

    fn snapshot(&mut self, index: u64, state: &[u8]) {
        let (last, last_checksum) = self.log.entry(Index(index)).expect("it is held");
        let base = SnapshotBase { last, last_checksum, membership: voters(&[1, 2, 3]), membership_index: Index(0) };
        let mut sink = self.log.snapshots().begin(base, None).expect("begun");
        sink.write_all(state).expect("written");
        sink.finish().expect("finished");
    }

    fn cut(&mut self, index: u64) {
        let (to, _) = self.log.entry(Index(index)).expect("it is held");
        self.persist(Persist { cut: Some(Cut { to, checksum: None }), ..Persist::default() });
    }

    fn persist(&mut self, persist: Persist) {
        self.log.stage(&persist).expect("staged");
        self.log.sync().expect("synced");
    }

    /// The commands after an index.
    fn commands(&self, after: u64) -> BTreeMap<Index, Vec<u8>> {
        commands_in(&self.entries).into_iter().filter(|(index, _)| index.0 > after).collect()
    }

    /// Ends during a write, of which this number of bytes reaches the disk.
    fn tear(mut self, disk: &SimulatedDisk, bytes: u64) {
        let mut batch = BatchBuilder::new(crate::checksum, Term(9), self.last.0.index.next(), self.last.1, 0);
        batch.push(Kind::Command, &[1; PAYLOAD]);
        self.vote(9, 1);
        disk.fail(Operation::Sync, 1);
        self.log.stage(&Persist { batch: batch.finish(), ..Persist::default() }).expect("staged");
        assert!(self.log.sync().is_err());
        disk.crash(Crash::Torn { bytes });
    }

    fn stop(self) {}
}

fn payload(term: u64, index: u64) -> Vec<u8> {
    (0..PAYLOAD as u64).map(|at| (at * 7 + 131 * term + 17 * index) as u8 | 1).collect()
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 256) as u8).collect()
}

fn commands_in(batches: &[Batch]) -> BTreeMap<Index, Vec<u8>> {
    let records =
        batches.iter().flat_map(|batch| batch.records().map(|record| (record.kind, record.id.index, record.payload)));
    records.filter(|(kind, ..)| *kind == Kind::Command).map(|(_, index, payload)| (index, payload.to_vec())).collect()
}

fn commands_of(log: &Log, from: Index, to: Index) -> BTreeMap<Index, Vec<u8>> {
    if from > to {
        return BTreeMap::new();
    }
    commands_in(&log.read(from, to, usize::MAX).expect("it can be read"))
}

/// The generations that the log raises, each with the index of its entry.
fn generations_in(log: &Log, found: &Recovered) -> Vec<(Index, u32)> {
    let batches = log.read(found.base.index.next(), found.last.index, usize::MAX).expect("it can be read");
    let of = |record: &Record<'_>| {
        let (purpose, rest) = internal::decode(record.payload).expect("a purpose");
        assert_eq!((record.kind, purpose), (Kind::Internal, Purpose::Generation));
        (record.id.index, u32::from_le_bytes(rest.try_into().expect("4 bytes")))
    };
    let records = batches.iter().flat_map(Batch::records).filter(|record| record.kind == Kind::Internal);
    records.map(|record| of(&record)).collect()
}

fn voters(ids: &[u64]) -> Membership {
    Membership::of_addresses(ids.iter().map(|id| (NodeId(*id), format!("10.0.0.{id}:7001"))))
}

fn alone() -> Membership {
    Membership::of_addresses([(NodeId(9), "10.0.0.9:7001".to_owned())]).with_cluster_id(Some(ClusterId::new(NOW, 99)))
}

fn to() -> NewMember {
    at("new", NOW.into())
}

/// The first member of a cluster that is made at this time.
fn at(cluster: &str, seconds: u64) -> NewMember {
    let now = UNIX_EPOCH + Duration::from_secs(seconds);
    NewMember { cluster: cluster.into(), member: NodeId(9), address: "10.0.0.9:7001".into(), now, random: 99 }
}

fn wal(disk: &SimulatedDisk, dir: &str) -> Wal {
    Wal { sizes: SIZES, ..Wal::at(dir).on(disk.clone()) }
}

fn open(disk: &SimulatedDisk, dir: &str, cluster: &str, member: u64) -> Result<(Log, Recovered), StorageError> {
    Log::open(&wal(disk, dir), cluster, NodeId(member), Arc::new(Unobserved)).map_err(|failure| failure.error)
}

fn survey(disk: &SimulatedDisk, dir: &str) -> Survey {
    Survey::on(Arc::new(disk.clone()), dir).expect("it can be surveyed")
}

fn read(mut source: Box<dyn SnapshotSource>) -> Vec<u8> {
    let mut bytes = vec![0; source.snapshot().bytes as usize];
    assert_eq!(source.read_at(&mut bytes, 0).expect("it can be read"), bytes.len());
    bytes
}

fn contents(disk: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.paths().into_iter().filter_map(|path| Some((path.clone(), disk.contents(&path)?))).collect()
}

fn paths(disk: &SimulatedDisk, dir: &str, extension: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.starts_with(dir) && path.extension().is_some_and(|found| found == extension);
    disk.paths().into_iter().filter(is_one).collect()
}

/// Damages a payload in all files of a directory.
fn lose(disk: &SimulatedDisk, dir: &str, payload: &[u8]) {
    for path in paths(disk, dir, "segment") {
        let bytes = disk.contents(&path).expect("it is there");
        if let Some(at) = bytes.windows(payload.len()).position(|window| window == payload) {
            assert!(disk.flip(&path, at + 10, 1));
            return;
        }
    }
    panic!("no segment of {dir} has it");
}

fn in_use(disk: &SimulatedDisk, dir: &str) -> bool {
    matches!(Survey::on(Arc::new(disk.clone()), dir), Err(SurveyError::InUse(error)) if error.to_string().contains("a node runs on"))
}

fn unusable(result: Result<Survey, SurveyError>) -> String {
    match result {
        Err(SurveyError::Unusable(error)) => refused(Err::<(), _>(error)),
        other => panic!("it can't be used: {other:?}"),
    }
}

fn refused<T>(result: Result<T, StorageError>) -> String {
    let Err(error) = result else { panic!("it is refused") };
    let line = error.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

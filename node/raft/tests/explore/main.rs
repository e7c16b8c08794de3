//! Exhaustive exploration of a small world: from a first state, every event within the stated
//! bounds happens, in every order, and the safety invariants (`quorate_world::oracle`) are checked
//! in every state.
//!
//! A state is the whole cluster (replicas, ballots, progress, disks, messages in flight, and the
//! history of the invariants) and the remaining bounds. Visited states are remembered by a 128-bit
//! digest. The search is depth first, so the path to a violation is at hand, and ends only when no
//! event is left: each test prints the number of states.
//!
//! Some interleavings are left out, and hide nothing:
//!
//! - **Within a node everything but the disk is prompt.** The actors of a node share no state. From
//!   outside, a delayed message between two of them looks as if the message from a peer (or from
//!   the disk) that caused it were delayed, and those are delayed at will. The simulator
//!   interleaves the inner messages too.
//! - **The wire is a bag.** Any message may arrive at any time after it was sent, or never. A lost
//!   message is one that this exploration never delivers, so losses, delays and reordering need no
//!   events of their own; duplicates do. For the same reason an arrival that changes nothing but
//!   the bag leads to no new state, and is not followed.
//! - **Messages that no node can hear any more are lost.** A reply of a term before the one on
//!   its receiver's disk, or one for a candidate or leader of that term that has another role
//!   now, is ignored for ever. It is taken off the wire at once, or it would distinguish states
//!   that behave alike.
//! - **Time is modelled for leases alone.** Elsewhere election timeouts are zero: no heard leader
//!   is protected, any timer may go off at any time, and any append may count as lost at any time.
//!   Every behaviour of a timed cluster is among these.
//! - Where a bound says `pre_vote: false`, every pre-vote is won at once. A pre-vote changes
//!   nothing at its voters and promises nothing, so it only decides whether the campaign goes on,
//!   and here it always may.
//!
//! [`firsts`] has the first states, [`bounds`] the bounds, [`search`] the search.
//!
//! `cargo test -p quorate-raft --test explore -- --ignored --nocapture` explores larger bounds; it
//! takes some minutes.

mod bounds;
mod firsts;
mod search;

use bounds::*;
use firsts::*;
use search::explore;

#[test]
fn no_interleaving_of_elections_with_pre_vote_breaks_a_promise() {
    let bounds = Bounds { pre_vote: true, terms: 1, timeouts: [1, 1, 0], ..Bounds::default() };
    explore("elections with pre-vote", cluster(), bounds);
}

#[test]
fn no_interleaving_of_elections_a_crash_and_a_duplicate_breaks_a_promise() {
    let bounds = Bounds { terms: 2, timeouts: [1, 1, 0], crashes: 1, repeats: 1, ..Bounds::default() };
    explore("elections with a crash and a duplicate", cluster(), bounds);
}

#[test]
fn no_interleaving_of_replication_and_a_crash_breaks_a_promise() {
    let bounds = Bounds { replicates: true, log: 3, crashes: 1, proposals: 2, ..Bounds::default() };
    explore("replication of two entries with a crash", led_by_1(), bounds);
}

#[test]
fn no_interleaving_of_replication_a_change_of_leader_and_a_crash_breaks_a_promise() {
    explore("replication, a change of leader and a crash", led_by_1(), Bounds { crashes: 1, ..change_of_leader() });
}

#[test]
fn no_interleaving_of_reads_and_a_change_of_leader_serves_a_stale_read() {
    let bounds = Bounds { proposals: 0, reads: 2, ..change_of_leader() };
    explore("reads and a change of leader", led_by_1(), bounds);
}

#[test]
fn no_interleaving_of_different_promises_and_a_change_of_leader_serves_a_stale_read_by_lease() {
    let bounds = Bounds { proposals: 0, leases: 2, waits: 1, ..change_of_leader() };
    explore("leases on promises of 2, 1 and 1 ms", led_by_1_promising([2, 1, 1], [2, 1, 1]), bounds);
}

#[test]
fn no_interleaving_of_a_restart_without_a_promise_serves_a_stale_read_by_lease() {
    // No time passes: every promise stays in force.
    let bounds = Bounds { proposals: 0, leases: 2, crashes: 1, ..change_of_leader() };
    explore("leases, and a restart that promises nothing", led_by_1_promising([1, 1, 1], [1, 0, 0]), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_leases() {
    let bounds = Bounds { proposals: 0, leases: 2, waits: 3, ..change_of_leader() };
    for promises in [[3, 1, 1], [3, 1, 2]] {
        explore(&format!("leases on promises of {promises:?} ms"), led_by_1_promising(promises, promises), bounds);
    }
    let bounds = Bounds { waits: 1, crashes: 1, ..bounds };
    explore("leases, and a restart that promises nothing", led_by_1_promising([1, 1, 1], [1, 0, 0]), bounds);
    let bounds = Bounds { waits: 2, ..bounds };
    explore("leases, and a restart with a shorter promise", led_by_1_promising([2, 2, 2], [2, 1, 1]), bounds);
}

#[test]
fn no_interleaving_of_figure_8_loses_a_committed_entry() {
    let bounds = Bounds { replicates: true, terms: 5, timeouts: [0, 0, 1], ..Bounds::default() };
    explore("Figure 8 with three nodes", figure_8(), bounds);
}

#[test]
fn no_interleaving_of_a_snapshot_for_a_follower_that_is_behind_loses_an_entry() {
    let bounds = Bounds { replicates: true, log: 3, crashes: 1, heartbeats: 1, proposals: 1, ..Bounds::default() };
    explore("a snapshot, sent, and a crash", a_follower_behind_a_cut(), bounds);
    let bounds = Bounds { snapshots: 1, crashes: 0, heartbeats: 2, proposals: 0, ..bounds };
    explore("a snapshot and a cut, and a follower that is behind", a_follower_behind(), bounds);
    let bounds = Bounds { crashes: 1, heartbeats: 1, ..bounds };
    explore("a snapshot, a cut and a crash", a_follower_behind(), bounds);
}

#[test]
fn no_interleaving_of_lost_payloads_and_a_change_of_leader_loses_an_entry() {
    let bounds = Bounds { replicates: true, terms: 2, timeouts: [1, 1, 0], ..Bounds::default() };
    for timeouts in [[0, 0, 1], [0, 1, 0]] {
        explore("two disks lost what the others have", with_lost_payloads(), Bounds { timeouts, ..bounds });
    }
    explore("the remains of a torn write", with_a_torn_write(), bounds);
}

#[test]
fn no_interleaving_of_torn_writes_loses_an_entry() {
    let bounds = Bounds {
        replicates: true,
        log: 2,
        proposals: 1,
        tears_payloads: true,
        crashes: 1,
        heartbeats: 1,
        ..Bounds::default()
    };
    explore("a torn write", led_by_1(), bounds);
}

#[test]
fn no_interleaving_of_a_change_of_members_loses_an_entry_or_elects_two() {
    for (what, change) in CHANGES {
        explore(&format!("{what}, and two campaign"), led_by_1_with_a_learner(), changed(change, [0, 1, 1]));
        let bounds = Bounds { repeats: 1, ..changed(change, [0, 1, 0]) };
        explore(&format!("{what}, one campaigns, and a duplicate"), led_by_1_with_a_learner(), bounds);
    }
    explore("a third voter is added, and campaigns", led_by_1_with_a_learner(), changed(&[grows], [0, 0, 1]));
    explore(
        "two of three voters are removed, and one campaigns",
        led_by_1_out_of_reach_of_3(),
        changed(&[shrinks], [0, 1, 0]),
    );
    explore(
        "two of three voters are removed one by one, and one campaigns",
        led_by_1_out_of_reach_of_3(),
        changed(&[leaves_3, shrinks], [0, 1, 0]),
    );
}

#[test]
fn no_interleaving_of_a_change_of_members_and_a_crash_loses_an_entry_or_elects_two() {
    for (what, change) in CHANGES {
        let bounds = Bounds { crashes: 1, ..changed(change, [0, 1, 0]) };
        explore(&format!("{what}, one crashes and one campaigns"), led_by_1_with_a_learner(), bounds);
    }
}

#[test]
fn no_interleaving_of_a_membership_change_a_leadership_transfer_and_a_read_serves_a_stale_read() {
    for (what, change) in CHANGES {
        let bounds = Bounds { leadership_transfers: 1, reads: 1, ..changed(change, [0; 3]) };
        explore(&format!("{what}, a leadership transfer and a read"), led_by_1_with_a_learner(), bounds);
    }
}

#[test]
fn no_interleaving_of_messages_from_outside_with_a_campaign_breaks_a_promise_or_ends_a_node() {
    let bounds = Bounds { replicates: true, terms: 3, timeouts: [0, 1, 0], ..Bounds::default() };
    let log = |entries| Bounds { log: entries, ..bounds };
    explore("one never added says anything, and one campaigns", with_messages_from(9, led_by_1()), log(3));
    explore("one removed says anything, and one campaigns", with_messages_from(3, led_by_1_without_3()), log(5));
}

#[test]
fn no_interleaving_of_a_leadership_transfer_loses_an_entry_or_serves_a_stale_read() {
    let bounds = Bounds { replicates: true, terms: 2, log: 3, leadership_transfers: 1, ..Bounds::default() };
    explore("a leadership transfer and an entry", led_by_1(), Bounds { proposals: 1, ..bounds });
    explore("a leadership transfer and a read", led_by_1(), Bounds { reads: 1, ..bounds });
}

#[test]
fn no_interleaving_of_a_witness_that_breaks_ties_loses_an_entry() {
    explore("a witness and a change of leader", led_by_1_with_a_witness(), change_of_leader());
    let bounds = Bounds { timeouts: [2, 0, 0], ..change_of_leader() };
    explore("a witness in a tie-break", led_by_1_with_a_witness(), bounds);
    let bounds = Bounds { timeouts: [0, 1, 0], crashes: 1, proposals: 0, ..bounds };
    explore("a witness, a change of leader and a crash", led_by_1_with_a_witness(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_tie_breaks() {
    let bounds = Bounds { timeouts: [2, 0, 1], crashes: 1, ..change_of_leader() };
    explore("a witness in a tie-break, and a crash", led_by_1_with_a_witness(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_changes_of_members() {
    for (what, change) in CHANGES {
        let bounds = Bounds { terms: 3, log: 5, ..changed(change, [0, 1, 1]) };
        explore(&format!("{what}, and two campaign, one behind the other"), led_by_1_with_a_learner(), bounds);
    }
    let first = led_by_1_with_a_learner;
    explore("a third voter is added, and one campaigns", first(), changed(&[grows], [0, 1, 0]));
    explore("a third voter is added, and two campaign", first(), changed(&[grows], [0, 1, 1]));
    let bounds = Bounds { terms: 1, log: 5, proposals: 1, ..changed(&[replaces], [0; 3]) };
    explore("a follower is replaced beside an entry", first(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_snapshots() {
    let bounds = Bounds { replicates: true, terms: 2, log: 3, timeouts: [0, 1, 0], ..Bounds::default() };
    explore("a snapshot and a change of leader", a_follower_behind_a_cut(), Bounds { heartbeats: 1, ..bounds });
    let bounds = Bounds { snapshots: 2, crashes: 1, proposals: 1, heartbeats: 1, timeouts: [0; 3], ..bounds };
    explore("snapshots, cuts, an entry and a crash", a_follower_behind(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_repairs() {
    let bounds = Bounds { replicates: true, terms: 2, timeouts: [1, 2, 0], ..Bounds::default() };
    explore("two disks lost what the others have, and one asks twice", with_lost_payloads(), bounds);
    let bounds = Bounds { timeouts: [1, 2, 0], ..bounds };
    explore("the remains of a torn write, asked about twice", with_a_torn_write(), bounds);
    explore(
        "a torn write and a change of leader",
        led_by_1(),
        Bounds { tears_payloads: true, crashes: 1, ..change_of_leader() },
    );
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_elections() {
    let bounds = Bounds { terms: 2, timeouts: [1, 1, 1], crashes: 1, ..Bounds::default() };
    explore("elections of three candidates with a crash", cluster(), bounds);
    let bounds = Bounds { pre_vote: true, timeouts: [1, 1, 0], crashes: 1, ..Bounds::default() };
    explore("elections with pre-vote and a crash", cluster(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_replication() {
    explore("a duplicate and a change of leader", led_by_1(), Bounds { repeats: 1, ..change_of_leader() });
    let bounds = Bounds { proposals: 0, heartbeats: 1, ..change_of_leader() };
    explore("a retry and a change of leader", led_by_1(), bounds);
}

#[test]
#[ignore = "larger bounds: minutes"]
fn larger_reads() {
    explore("a read, an entry and a change of leader", led_by_1(), Bounds { reads: 1, ..change_of_leader() });
}

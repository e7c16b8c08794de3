//! The service under faults.

use quorate::Service;
use quorate_trial::Trial;
use reminders::{Command, Reminders};

#[test]
fn reminders_keep_their_promises() {
    Trial::new(Reminders::default)
        .commands(|rng, _replies| match rng.below(4) {
            0 => Command::Cancel(rng.below(20)),
            _ => Command::Add { seconds: rng.below(100) as u32, text: format!("text {}", rng.below(5)) },
        })
        .queries(|_rng| ())
        .invariant(|reminders, at| match reminders.query((), *at).iter().find(|(_, reminder)| reminder.due < at.time) {
            Some(late) => Err(format!("{late:?} is overdue")),
            None => Ok(()),
        })
        .run();
}

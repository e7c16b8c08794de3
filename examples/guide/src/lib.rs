//! Reminders: a text that comes back after a delay.

use quorate::{At, Context, LogTime, Service, Token};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The most reminders that are pending at a time.
pub const PENDING_MAX: usize = 10_000;
/// The most bytes of a text.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// The state: the pending reminders by number.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Reminders {
    last: u64,
    pending: BTreeMap<u64, Reminder>,
}

/// A text, and the log time at which it is due.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reminder {
    /// At most [`TEXT_BYTES_MAX`].
    pub text: String,
    /// The log time of its timer.
    pub due: LogTime,
}

/// A request that changes the state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Brings this text back after as many seconds.
    Add {
        /// Log time from the command on.
        seconds: u32,
        /// The text to bring back.
        text: String,
    },
    /// Forgets the reminder with this number.
    Cancel(u64),
}

/// The outcome of a [`Command`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The reminder has this number.
    Added(u64),
    /// The reminder will not come back.
    Cancelled,
    /// No reminder with this number is pending.
    NotPending,
    /// [`PENDING_MAX`] reminders are pending.
    Full,
    /// The text has more than [`TEXT_BYTES_MAX`].
    TooLong,
}

/// The signal of a timer: the reminder with this number is due.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Due(u64);

/// The event that watchers get. The token is higher than that of every earlier reminder.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reminded {
    /// The number that the reply to [`Command::Add`] had.
    pub number: u64,
    /// The text of that command.
    pub text: String,
    /// The fence for what a watcher does with it.
    pub token: Token,
}

impl Service for Reminders {
    quorate::types!(Command => Reply, () => Vec<(u64, Reminder)>, event Reminded, signal Due);

    fn apply(&mut self, command: Command, cx: &mut Context<'_, Self>) -> Reply {
        match command {
            Command::Add { text, .. } if text.len() > TEXT_BYTES_MAX => Reply::TooLong,
            Command::Add { .. } if self.pending.len() >= PENDING_MAX => Reply::Full,
            Command::Add { seconds, text } => {
                self.last += 1;
                let due = LogTime(cx.now().0 + u64::from(seconds) * 1_000);
                cx.after(Duration::from_secs(seconds.into()), Due(self.last));
                self.pending.insert(self.last, Reminder { text, due });
                Reply::Added(self.last)
            }
            Command::Cancel(number) => match self.pending.remove(&number) {
                Some(_) => {
                    cx.cancel(&Due(number));
                    Reply::Cancelled
                }
                None => Reply::NotPending,
            },
        }
    }

    fn signal(&mut self, Due(number): Due, cx: &mut Context<'_, Self>) {
        if let Some(Reminder { text, .. }) = self.pending.remove(&number) {
            let token = cx.token();
            cx.publish("reminders", Reminded { number, text, token });
        }
    }

    fn query(&self, (): (), _: At) -> Vec<(u64, Reminder)> {
        self.pending.iter().map(|(number, reminder)| (*number, reminder.clone())).collect()
    }
}

/// A pager outside of the cluster. Two watchers may forward one reminder, and one of them late.
#[derive(Default)]
pub struct Pager {
    highest: Option<Token>,
}

impl Pager {
    /// Whether the pager shows the reminder: it refuses a token that is not above the highest.
    pub fn show(&mut self, reminded: &Reminded) -> bool {
        let is_new = self.highest < Some(reminded.token);
        self.highest = self.highest.max(Some(reminded.token));
        is_new
    }
}

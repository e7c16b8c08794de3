//! A pseudo-terminal for commands, with its screen as a terminal would show it.

use crate::support::PATIENCE;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// The polling interval of the screen.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A pseudo-terminal of 24 rows and 80 columns.
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

pub(crate) struct Screen {
    pub(crate) text: String,
    pub(crate) is_alternate: bool,
    hides_cursor: bool,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let path = ptsname(&master, Vec::new()).expect("a name");
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        let slave = File::options().read(true).write(true).open(path).expect("opened").into();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let master = File::from(master);
        let (mut reading, shown) = (master.try_clone().expect("cloned"), Arc::clone(&screen));
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut piece) {
                shown.lock().expect("sound").process(&piece[..count]);
            }
        });
        Self { master, slave, screen }
    }

    /// Runs a command with this terminal as its own: `setsid` makes it the controlling one.
    pub(crate) fn run(&self, command: &Command) -> Child {
        let asked = command.as_std();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(asked.get_program()).args(asked.get_args());
        for (name, value) in asked.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let end = || Stdio::from(self.slave.try_clone().expect("cloned"));
        command.stdin(end()).stdout(end()).stderr(end()).kill_on_drop(true);
        command.spawn().expect("setsid of util-linux runs")
    }

    pub(crate) fn modes(&self) -> LocalModes {
        tcgetattr(&self.slave).expect("a terminal").local_modes
    }

    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).expect("written");
    }

    pub(crate) fn screen(&self) -> Screen {
        let parser = self.screen.lock().expect("sound");
        let screen = parser.screen();
        Screen { text: screen.contents(), is_alternate: screen.alternate_screen(), hides_cursor: screen.hide_cursor() }
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        self.until_screen(what, |screen| holds(&screen.text)).await;
    }

    /// Waits for the screen from before, with its cursor.
    pub(crate) async fn until_left(&self) {
        self.until_screen("the screen from before", |screen| !screen.is_alternate && !screen.hides_cursor).await;
    }

    async fn until_screen(&self, what: &str, holds: impl Fn(&Screen) -> bool) {
        let shown = timeout(PATIENCE, async {
            while !holds(&self.screen()) {
                sleep(LOOK_AGAIN).await;
            }
        });
        assert!(shown.await.is_ok(), "{what}: not within {PATIENCE:?}; the screen is\n{}", self.screen().text);
    }
}

//! The terminal: drawn ten times a second at most, and as it was before on every exit.

use super::{
    facts::Facts,
    screen::{View, draw},
    take,
};
use crate::{client::Live, exit::Failure};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use std::{env, io, pin::pin, thread, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

/// The least time between two screens.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// The time after which a screen is drawn again without news, since facts grow older.
const DRAW_AGAIN: Duration = Duration::from_secs(1);
/// Keys that wait to be taken; typing faster than this waits too.
const KEYS_MAX: usize = 16;
/// The events that a page key scrolls.
const PAGE: usize = 5;

/// A command of the keyboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Quit,
    Pause,
    /// Towards older events, or with a negative number towards newer ones.
    Scroll(isize),
    Redraw,
}

/// Shows the stream until `q`, Ctrl-C or a signal.
pub(super) async fn show(live: Live) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    // Dropped on every way out, also by a panic, which restores the terminal before its message.
    let mut restored = Restored(ratatui::try_init()?);
    let shown = watch(live, &mut restored.0);
    tokio::select! {
        biased;
        () = signals.any() => Ok(()),
        shown = shown => shown,
    }
}

struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

async fn watch(mut live: Live, terminal: &mut DefaultTerminal) -> Result<(), Failure> {
    let (began, mut facts) = (Instant::now(), Facts::of(live.endpoint()));
    let mut screen = Screen::new();
    let (mut keys, mut has_keys) = (keys()?, true);
    let mut tick = interval(DRAW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let news = {
            let mut coming = pin!(live.next());
            loop {
                tokio::select! {
                    biased;
                    key = keys.recv(), if has_keys => match key {
                        Some(Key::Quit) => return Ok(()),
                        // No terminal to read: signals are left.
                        None => has_keys = false,
                        Some(key) => screen.press(key, &facts, began.elapsed()),
                    },
                    _ = tick.tick() => screen.draw(terminal, &facts, began.elapsed())?,
                    news = &mut coming => break news?,
                }
            }
        };
        let changes = take(&mut facts, &mut live, news, began.elapsed())?;
        screen.changed(&facts, &changes);
    }
}

/// What is shown of the facts, and whether it is drawn.
struct Screen {
    view: View,
    /// While paused: the facts of that time.
    kept: Option<(Facts, Duration)>,
    scrolled_max: usize,
    is_drawn: bool,
    drawn_at: Duration,
}

impl Screen {
    fn new() -> Self {
        // As https://no-color.org asks.
        let has_colour = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let view = View { has_colour, ..View::default() };
        Self { view, kept: None, scrolled_max: 0, is_drawn: false, drawn_at: Duration::ZERO }
    }

    fn press(&mut self, key: Key, facts: &Facts, now: Duration) {
        match key {
            Key::Pause => {
                self.kept = if self.kept.is_some() { None } else { Some((facts.clone(), now)) };
                self.view.is_paused = self.kept.is_some();
            }
            Key::Scroll(by) => {
                self.view.scrolled = self.view.scrolled.saturating_add_signed(by).min(self.scrolled_max);
            }
            Key::Quit | Key::Redraw => {}
        }
        self.is_drawn = false;
    }

    /// A story that is scrolled keeps its place.
    fn changed(&mut self, facts: &Facts, changes: &[super::Change]) {
        self.is_drawn = false;
        if self.view.scrolled > 0 && self.kept.is_none() {
            let is_new = |change: &&super::Change| match change {
                super::Change::Event(event) => {
                    facts.story.iter().any(|told| told.event.id == event.id && super::screen::is_shown(told))
                }
                _ => false,
            };
            self.view.scrolled += changes.iter().filter(is_new).count();
        }
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal, facts: &Facts, now: Duration) -> io::Result<()> {
        let is_due = now.saturating_sub(self.drawn_at) >= DRAW_AGAIN;
        if self.is_drawn && !is_due {
            return Ok(());
        }
        (self.is_drawn, self.drawn_at) = (true, now);
        let (facts, now) = self.kept.as_ref().map_or((facts, now), |(facts, at)| (facts, *at));
        let view = &self.view;
        let mut scrolled_max = 0;
        terminal.draw(|frame| scrolled_max = draw(frame, facts, view, now))?;
        self.scrolled_max = scrolled_max;
        Ok(())
    }
}

/// The keys, read by a thread that ends with the process: a terminal is only read by blocking.
fn keys() -> io::Result<mpsc::Receiver<Key>> {
    let (pressed, keys) = mpsc::channel(KEYS_MAX);
    let read = move || {
        while let Ok(event) = event::read() {
            if let Some(key) = key(&event)
                && pressed.blocking_send(key).is_err()
            {
                return;
            }
        }
    };
    thread::Builder::new().name("quorate-keys".into()).spawn(read)?;
    Ok(keys)
}

fn key(event: &Event) -> Option<Key> {
    let key = match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => key,
        Event::Resize(..) => return Some(Key::Redraw),
        _ => return None,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') => Some(Key::Quit),
        KeyCode::Char('p') => Some(Key::Pause),
        KeyCode::Down => Some(Key::Scroll(1)),
        KeyCode::Up => Some(Key::Scroll(-1)),
        KeyCode::PageDown => Some(Key::Scroll(PAGE.cast_signed())),
        KeyCode::PageUp => Some(Key::Scroll(-PAGE.cast_signed())),
        KeyCode::Home => Some(Key::Scroll(isize::MIN)),
        KeyCode::End => Some(Key::Scroll(isize::MAX)),
        _ => None,
    }
}

/// The signals that end the command, with the terminal restored.
struct Signals([Signal; 4]);

impl Signals {
    fn new() -> io::Result<Self> {
        let [one, two, three, four] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()].map(signal);
        Ok(Self([one?, two?, three?, four?]))
    }

    async fn any(&mut self) {
        let [one, two, three, four] = &mut self.0;
        tokio::select! {
            _ = one.recv() => {}
            _ = two.recv() => {}
            _ = three.recv() => {}
            _ = four.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn keys_pause_scroll_and_end() {
        let pressed = |code, modifiers| key(&Event::Key(KeyEvent::new(code, modifiers)));
        let plain = |code| pressed(code, KeyModifiers::NONE);
        assert_eq!(plain(KeyCode::Char('q')), Some(Key::Quit));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!((plain(KeyCode::Char('p')), plain(KeyCode::Char('c'))), (Some(Key::Pause), None));
        assert_eq!((plain(KeyCode::Down), plain(KeyCode::Up)), (Some(Key::Scroll(1)), Some(Key::Scroll(-1))));

        let (mut screen, facts) = (Screen::new(), steady());
        screen.scrolled_max = 7;
        for (by, at) in [(1, 1), (5, 6), (5, 7), (-1, 6), (isize::MIN, 0), (isize::MAX, 7)] {
            screen.press(Key::Scroll(by), &facts, super::super::fixtures::at(1));
            assert_eq!(screen.view.scrolled, at);
        }
        screen.press(Key::Pause, &facts, super::super::fixtures::at(2));
        assert!(screen.view.is_paused && screen.kept.is_some());
        screen.press(Key::Pause, &facts, super::super::fixtures::at(3));
        assert!(!screen.view.is_paused && screen.kept.is_none());
    }
}

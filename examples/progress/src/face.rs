//! The bar on a terminal, or the lines elsewhere.

use crate::meter::Task;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{fmt, io::Write, time::Duration};

/// The interval of lines, and the time before the first.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The time before a bar is drawn: a short task needs none.
const BAR_AFTER: Duration = Duration::from_millis(500);

/// The way in which progress is shown.
pub(crate) struct Face {
    task: Task,
    kind: Kind,
}

enum Kind {
    Bar { bar: ProgressBar, is_shown: bool },
    Lines { to: Box<dyn Write + Send>, next: Duration },
}

impl Face {
    pub(crate) fn bar(task: Task) -> Self {
        Self::bar_on(task, ProgressDrawTarget::stderr())
    }

    fn bar_on(task: Task, target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        Self { task, kind: Kind::Bar { bar, is_shown: false } }
    }

    pub(crate) fn lines(task: Task, to: impl Write + Send + 'static) -> Self {
        Self { task, kind: Kind::Lines { to: Box::new(to), next: LINE_EVERY } }
    }

    /// Shows the state, if it is time.
    pub(crate) fn look(&mut self, elapsed: Duration, done: u64, total: Option<u64>, note: &str) {
        match &mut self.kind {
            Kind::Bar { bar, is_shown } if elapsed >= BAR_AFTER => {
                if !*is_shown {
                    bar.set_style(style(total.is_some()));
                    bar.set_prefix(self.task.what.clone());
                    *is_shown = true;
                }
                if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                    bar.set_style(style(true));
                    bar.set_length(total);
                }
                bar.set_message(self.task.figures(elapsed, done, total, note));
                bar.set_position(total.map_or(done, |total| done.min(total)));
                bar.tick();
            }
            Kind::Bar { .. } => {}
            Kind::Lines { to, next } => {
                if elapsed >= *next {
                    *next = elapsed + LINE_EVERY;
                    // Standard error may be closed, which is no reason to end the task.
                    let _ = writeln!(to, "{}", self.task.line(elapsed, done, total, note));
                }
            }
        }
    }

    /// Writes to the terminal without leaving a part of the bar in between.
    pub(crate) fn aside(&self, write: impl FnOnce()) {
        match &self.kind {
            Kind::Bar { bar, is_shown: true } => bar.suspend(write),
            _ => write(),
        }
    }

    /// Removes the bar.
    pub(crate) fn end(&mut self) {
        if let Kind::Bar { bar, is_shown: true } = &self.kind {
            bar.finish_and_clear();
        }
    }
}

/// What, a bar that takes the room that is left, and the figures.
fn style(has_total: bool) -> ProgressStyle {
    let template = if has_total { "{prefix} [{wide_bar}] {msg}" } else { "{prefix} {spinner} {msg}" };
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "))
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face").field("task", &self.task).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unit;
    use indicatif::InMemoryTerm;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[test]
    fn lines_come_every_five_seconds_and_none_before() {
        let said = Said::default();
        let mut face = Face::lines(task(), said.clone());
        for (at_ms, done) in [(100, 1), (4_900, 49), (5_000, 50), (5_100, 51), (9_900, 99), (10_050, 100)] {
            face.look(Duration::from_millis(at_ms), done, Some(200), "");
        }
        face.end();
        let expected = "quorate-sim: seeds: 50 of 200 runs (25 %), 10/s, 15 s left\n\
                        quorate-sim: seeds: 100 of 200 runs (50 %), 10/s, 10 s left\n";
        assert_eq!(said.text(), expected, "nothing is said at the end");
    }

    #[test]
    fn a_bar_has_the_task_and_its_figures_and_disappears() {
        let terminal = InMemoryTerm::new(10, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut face = Face::bar_on(task(), target);
        face.look(Duration::from_millis(400), 1, Some(200), "");
        assert_eq!(terminal.contents(), "", "too early");
        face.look(Duration::from_secs(5), 50, Some(200), "2 failed");
        let shown = terminal.contents();
        assert!(shown.starts_with("seeds [===") && shown.lines().count() == 1, "{shown}");
        assert!(shown.ends_with("] 50 of 200 runs (25 %), 10/s, 15 s left; 2 failed"), "{shown}");
        face.end();
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn without_a_total_there_are_figures_alone_until_there_is_one() {
        let terminal = InMemoryTerm::new(10, 80);
        let mut face = Face::bar_on(task(), ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        face.look(Duration::from_secs(2), 50, None, "");
        assert!(terminal.contents().ends_with(" 50 runs, 25/s, after 2 s"), "{}", terminal.contents());
        face.look(Duration::from_secs(4), 100, Some(100), "");
        assert!(terminal.contents().contains("[====="), "{}", terminal.contents());
        face.end();
        assert_eq!(terminal.contents(), "");
    }

    #[test]
    fn a_closed_standard_error_does_not_end_the_task() {
        let mut face = Face::lines(task(), Closed);
        face.look(Duration::from_secs(6), 1, None, "");
        face.end();
    }

    fn task() -> Task {
        Task { program: "quorate-sim", what: "seeds".into(), unit: Unit::Items("runs") }
    }

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Said {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("sound").clone()).expect("text")
        }
    }

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("sound").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

//! The machine of a node: the space on its disk, and tasks that wait for a resource.

use super::{Each, LateGauge, NodeMetrics, Scope, float};
use crate::{
    catalogue,
    labels::{Label as _, Resource, Waiting},
};

pub(super) struct Host {
    free_space: LateGauge,
    pressure: Each<Resource, Each<Waiting, LateGauge>>,
}

impl Host {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            free_space: scope.late_gauge(&catalogue::FREE_SPACE),
            pressure: scope
                .each("resource", |scope| scope.each("waiting", |scope| scope.late_gauge(&catalogue::PRESSURE))),
        }
    }
}

impl NodeMetrics {
    /// Sets the space that this process may use on the file system of the data directory.
    pub fn free_space(&self, bytes: u64) {
        self.inner.host.free_space.set(float(bytes));
    }

    /// Sets the part of the last ten seconds in which tasks waited for a resource, from 0 to 1.
    pub fn pressure(&self, resource: Resource, waiting: Waiting, ratio: f64) {
        self.inner.host.pressure.of(resource).of(waiting).set(ratio);
    }

    /// Sets the pressure on all resources from `/proc/pressure`, where Linux has it. Reads three
    /// small files, so it is for a thread that may block.
    pub fn read_pressure(&self) {
        for resource in Resource::ALL {
            if let Ok(text) = std::fs::read_to_string(format!("/proc/pressure/{}", resource.as_str())) {
                ratios(&text).for_each(|(waiting, ratio)| self.pressure(*resource, waiting, ratio));
            }
        }
    }
}

/// The averages over ten seconds in the text of one resource, in which they are percentages.
fn ratios(text: &str) -> impl Iterator<Item = (Waiting, f64)> {
    text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let waits = words.next()?;
        let waiting = Waiting::ALL.iter().find(|waiting| waiting.as_str() == waits)?;
        let percent: f64 = words.find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
        Some((*waiting, percent / 100.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_and_lines_of_other_forms_are_left_out() {
        let text = "some avg10=2.50 avg60=99.68 avg300=1.75 total=2589453074\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=326561120\n\
                    most avg10=1.00\nsome avg60=1.00\nsome avg10=none\n\n";
        assert_eq!(ratios(text).collect::<Vec<_>>(), [(Waiting::One, 0.025), (Waiting::All, 0.0)]);
    }
}

//! The processor time of the page's main thread, measured:
//!
//! `cargo test -p quorate-kv --test processes the_processor_time -- --ignored --nocapture`

use crate::{
    browser::{Browser, DESKTOP},
    support::{PATIENCE, Running, laid_out_as},
};
use quorate_kv::cluster::Options;
use quorate_kv::load::{Ledger, LoadOptions, Writers};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// The timing of a demo: with a shorter one, links seem to be cut now and then on a busy machine, and are drawn anew.
const PACE: &str = "[timing]\nheartbeat_interval = \"500ms\"\nelection_timeout = [\"2s\", \"4s\"]\n";
/// The windows that are measured one after another, and the length of each.
const WINDOWS: usize = 5;
const WINDOW: Duration = Duration::from_secs(6);
/// A writer rests so long after an answer, as that of `demo --page`.
const REST: Duration = Duration::from_millis(100);
/// What the browser counts, in seconds.
const KINDS: [&str; 4] = ["TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, for a quiet machine: it takes two minutes and asserts nothing of its figures"]
async fn the_processor_time_of_the_page_with_a_steady_cluster() {
    let Some(browser) = Browser::start().await else { return };
    println!("main thread of the page, percent of a core, by the thread's own clock; {WINDOWS} windows of {WINDOW:?}");
    println!("{:<30}{:>8}  of which {:>8}{:>8}{:>8}{:>10}", "", "task", "script", "layout", "style", "layouts/s");
    for nodes in [3, 7] {
        let mut cluster = laid_out_as(|options| Options { nodes, sections: PACE.to_owned(), ..options });
        cluster.start_all().await.expect("started");
        cluster.leader(PATIENCE).await.expect("a leader");
        let (_, others) = cluster.roles().await;
        let ledger = Ledger::new();
        let load = LoadOptions { writers: 1, rest: REST, ..LoadOptions::default() };
        let writers = Writers::start(&cluster, &ledger, load).expect("writers");
        browser.show_on(DESKTOP, "light").await;
        browser.open(&cluster.endpoint(others[0])).await;
        browser.until("a healthy cluster", &format!("word().includes('Healthy') && rings() === {nodes}")).await;
        // By time of the thread: on a busy machine, that of the clock counts waiting, too.
        browser.devtools("Performance.enable", &json!({ "timeDomain": "threadTicks" })).await;
        measure(&browser, &cluster, "").await;
        browser.run("document.getElementById('flow').remove()").await;
        measure(&browser, &cluster, ", without packets").await;
        browser.devtools("Performance.disable", &json!({})).await;
        writers.stop().await;
    }
}

async fn measure(browser: &Browser, cluster: &Running, how: &str) {
    let mut windows = Vec::new();
    for _ in 0..WINDOWS {
        let (before, since) = (metrics(browser).await, Instant::now());
        sleep(WINDOW).await;
        let (after, took) = (metrics(browser).await, since.elapsed().as_secs_f64());
        let rate = |name: &str| (after[name] - before[name]) / took;
        windows.push(KINDS.map(|kind| 100.0 * rate(kind)).into_iter().chain([rate("LayoutCount")]).collect::<Vec<_>>());
    }
    windows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let [least, median, most] = [&windows[0], &windows[WINDOWS / 2], &windows[WINDOWS - 1]];
    let name = format!("{} nodes{how}", cluster.ids().len());
    let [task, script, layout, style, layouts] = median[..] else { unreachable!("five figures") };
    println!(
        "{name:<30}{task:>8.2}          {script:>8.2}{layout:>8.2}{style:>8.2}{layouts:>10.1}   (least {:.2}, most {:.2})",
        least[0], most[0]
    );
}

async fn metrics(browser: &Browser) -> BTreeMap<String, f64> {
    let found = browser.devtools("Performance.getMetrics", &json!({})).await;
    let metrics = found["metrics"].as_array().expect("a list").iter();
    metrics
        .map(|metric| {
            let name = metric["name"].as_str().expect("a name").to_owned();
            (name, metric["value"].as_f64().expect("a number"))
        })
        .collect()
}

//! What must not happen on the page: elements that move away from a reader, requests to elsewhere, movement where the
//! system asks for none.

use crate::{
    browser::{Browser, DESKTOP, PHONE, SCREENS, WALL},
    support::{Running, cluster},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// The most that the layout may shift while the page is watched, the story apart: its sentences move down.
const SHIFT_MAX: f64 = 0.01;
/// The time for which each screen is watched; `QUORATE_SHIFT_SECONDS` names another one, such as 40.
const WATCHED: Duration = Duration::from_secs(8);
/// Sums up layout shifts from the beginning of a document. The story is hidden for it.
const WATCH: &str = "
    window.shifted = 0; window.sources = [];
    new PerformanceObserver(list => {
      for (const { value, sources: moved } of list.getEntries()) {
        shifted += value;
        sources.push(...moved.map(({ node }) => `${value.toFixed(4)} ${node?.id || node?.className || node?.nodeName}`));
      }
    }).observe({ type: 'layout-shift', buffered: true });
    addEventListener('DOMContentLoaded', () => { document.querySelector('.story').style.visibility = 'hidden'; });
";

async fn opened() -> Option<(Browser, Running)> {
    let browser = Browser::start().await?;
    let cluster = cluster(3).await;
    let (_, others) = cluster.roles().await;
    browser.open(&cluster.endpoint(others[0])).await;
    browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
    Some((browser, cluster))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_stays_while_a_cluster_serves_and_the_page_asks_no_other_host() {
    let Some((browser, cluster)) = opened().await else { return };
    let watched = std::env::var("QUORATE_SHIFT_SECONDS").ok().map_or(WATCHED, |seconds| {
        Duration::from_secs(seconds.parse().expect("QUORATE_SHIFT_SECONDS is a number of seconds"))
    });
    let (_, others) = cluster.roles().await;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": WATCH })).await;
    for screen in SCREENS {
        browser.show_on(screen, "light").await;
        browser.open(&cluster.endpoint(others[0])).await;
        browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
        let mut client = cluster.client(&others).expect("a client");
        let mut wrote = 0_u32;
        let until = tokio::time::Instant::now() + watched;
        while tokio::time::Instant::now() < until {
            client
                .put(&format!("key-{}", wrote % 50), "value ".repeat(1 + wrote as usize % 100))
                .await
                .expect("written");
            wrote += 1;
            sleep(Duration::from_millis(20)).await;
        }
        let shifted = browser.run("return [shifted, sources.slice(0, 20)]").await;
        println!("{}: shifted by {} in {watched:?} with {wrote} writes", screen.name, shifted[0]);
        assert!(shifted[0].as_f64().is_some_and(|sum| sum < SHIFT_MAX), "{screen:?}: {shifted:#}");
    }
    let asked = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)").await;
    let asked: Vec<String> = serde_json::from_value(asked).expect("a list");
    let own = cluster.endpoint(others[0]);
    assert!(asked.iter().all(|url| url.starts_with(&own) || url.starts_with("data:")), "{asked:?}");
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_fits_on_a_wall_and_nothing_moves_where_the_system_asks_for_that() {
    let Some((browser, _cluster)) = opened().await else { return };
    browser.show_on(WALL, "dark").await;
    browser.until("its layout", "innerWidth === 1920").await;
    let size = "const all = document.documentElement; return [all.scrollHeight, all.scrollWidth]";
    assert_eq!(browser.run(size).await, json!([1080, 1920]), "it scrolls");
    // Nor does it with all that it may show.
    let more = "const need = { text: 'A sync on the disk of node 2 takes 144 ms, usually 12.', next: 'iostat', runbook: 'slow-disk' };
        const stage = [1, 2], stages_ms = { queue: stage, encode: stage, quorum: stage, commit: stage, apply: stage, reply: stage,
          voters: { 1: stage, 2: stage, 3: stage } };
        page.live = false; Object.assign(page.state, { p99_ms: 2.1, stages_ms, needs: [need, need] }); draw();";
    assert_eq!(
        browser.run(&format!("{more} {size}")).await,
        json!([1080, 1920]),
        "it scrolls with two needs, stages and p99"
    );
    browser.run("goLive()").await;
    for screen in [DESKTOP, PHONE] {
        browser.show_on(screen, "light").await;
        let wide = browser.run("return document.documentElement.scrollWidth <= innerWidth").await;
        assert_eq!(wide, true, "the page is wider than {screen:?}");
    }

    const MOVING: &str = "document.getAnimations().filter(one => one.playState === 'running'
        && (one.effect.target?.checkVisibility() ?? true)).length";
    browser.until("packets on their way", &format!("{MOVING} > 0")).await;
    browser.settings("light", "reduce").await;
    browser
        .until(
            "no movement",
            &format!("{MOVING} === 0 && getComputedStyle(document.getElementById('flow')).display === 'none'"),
        )
        .await;
    // Numbers stay: the election timers count on.
    let timer = "[...document.querySelectorAll('.node .s')].map(text => text.textContent).join()";
    browser.run(&format!("window.timers = {timer}")).await;
    browser.until("timers that count", &format!("{timer} !== timers")).await;
    assert_eq!(browser.run(&format!("return {MOVING}")).await, 0);
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

//! The accessibility of the page: axe-core on the page of a real cluster, and what it can't see: the keyboard.

use crate::{
    browser::{Browser, DESKTOP, PHONE, SCREENS, THEMES},
    support::cluster,
};
use serde_json::Value;
use std::path::Path;

/// WCAG 2.2 AA with what it is made of, and what axe-core calls best practice.
const RULES: &str = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22a', 'wcag22aa', 'best-practice']";
/// Each element that the keyboard can reach, as text, in the order of the document.
const REACHABLE: &str = "[...document.querySelectorAll('a[href], button, summary, select, input, [tabindex=\"0\"]')]
    .filter(element => element.checkVisibility() && !element.disabled)";

#[tokio::test(flavor = "multi_thread")]
async fn axe_core_finds_nothing_on_any_screen_in_either_theme_while_a_cluster_is_steady_and_while_leaders_are_dead() {
    let Some(axe) = axe_core() else { return };
    let Some(browser) = Browser::start().await else { return };
    let mut cluster = cluster(3).await;
    let (leader, others) = cluster.roles().await;
    browser.open(&cluster.endpoint(others[0])).await;
    browser.run(&axe).await;
    browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
    // The faults of a demo, an explanation and a reason are shown, too.
    browser.run("record.last().demo = true; redraw(true);").await;
    browser.until("faults to try", "document.getElementById('demo').checkVisibility()").await;
    browser.run("document.querySelector('.node').focus()").await;
    browser.until("an explanation", "tip()").await;
    nothing_is_found(&browser, "a steady cluster").await;

    cluster.kill(leader).await.expect("it ran");
    browser.until("another leader", &format!("/^Node (?!{leader})\\d+ leads term/.test(title())")).await;
    browser.until("the node that is gone", &format!("label({leader}).includes('No answer')")).await;
    browser.run("document.querySelector('#list details').open = true").await;
    nothing_is_found(&browser, "a dead leader").await;

    cluster.kill(others[1]).await.expect("it ran");
    browser.until("no leader", "word().includes('No leader')").await;
    nothing_is_found(&browser, "no leader").await;

    // The check itself: what it would say of a page with faults.
    browser
        .run(
            "const main = document.getElementById('main');
             main.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><p style=\"color: #999; background: #aaa\">pale</p>');",
        )
        .await;
    let found = violations(&browser).await;
    for rule in ["image-alt", "color-contrast"] {
        assert!(
            found.iter().any(|violation| violation.starts_with(rule)),
            "{rule} was planted, and is not in {found:?}"
        );
    }
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_each_element_in_the_order_of_reading_and_escape_closes_its_explanation() {
    let Some(browser) = Browser::start().await else { return };
    let cluster = cluster(3).await;
    let (_, others) = cluster.roles().await;
    for screen in [DESKTOP, PHONE] {
        browser.show_on(screen, "light").await;
        browser.open(&cluster.endpoint(others[0])).await;
        browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
        // The list of events grows while this runs; the moment that is shown does not.
        browser.run("document.getElementById('pause').click(); document.activeElement.blur();").await;
        let expected = browser.run(&format!("window.reachable = {REACHABLE}; return reachable.length")).await;
        let expected = expected.as_u64().expect("a count");
        assert!(expected > 25, "{expected} elements");
        for place in 0..expected {
            browser.press("Tab", 9).await;
            let at = "const element = document.activeElement, style = getComputedStyle(element);
                 const marked = element.dataset.link ? getComputedStyle(element.firstElementChild).stroke : style.outlineStyle;
                 return [reachable.indexOf(element), marked !== 'none' || element.className === 'skip',
                   element.outerHTML.slice(0, 100), tip()]";
            let at = browser.run(at).await;
            assert_eq!(
                (at[0].as_u64(), &at[1]),
                (Some(place), &Value::Bool(true)),
                "the place, and its ring: {}",
                at[2]
            );
            let html = at[2].as_str().unwrap_or_default();
            let explains = ["data-x", "data-node", "data-link"].iter().any(|kind| html.contains(kind));
            assert_eq!(at[3] != "", explains, "{at}");
            if explains {
                browser.press("Escape", 27).await;
                assert_eq!(browser.run("return tip()").await, "", "Escape closes it");
            }
        }
        // A moment of the timeline explains itself by the arrow keys, and a part of a log to a pointer.
        browser.run("document.getElementById('line').focus()").await;
        browser.press("ArrowLeft", 37).await;
        browser
            .until("an explanation of the moment", "/^(Node \\d: |No leader).*At|From .*Raft paper §5/.test(tip())")
            .await;
        browser.press("Escape", 27).await;
        assert_eq!(browser.run("return tip()").await, "", "Escape closes it");
        for (element, says) in [(".s-applied", "Applied"), ("g[data-link]", "between nodes"), ("#word", "Raft paper §")]
        {
            let over = "dispatchEvent(new PointerEvent('pointerover', { bubbles: true }))";
            browser.run(&format!("document.querySelector('{element}').{over}")).await;
            assert!(browser.run("return tip()").await.as_str().is_some_and(|tip| tip.contains(says)), "{element}");
        }
        // In the order of the sections, which is that of reading.
        let sections = "return [...document.querySelectorAll('main > section')].map(section => section.className)";
        let sections = browser.run(sections).await;
        assert_eq!(sections, serde_json::json!(["state", "cluster", "story", "logs", "time", "path"]));
    }
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

async fn nothing_is_found(browser: &Browser, while_: &str) {
    for theme in THEMES {
        for screen in SCREENS {
            browser.show_on(screen, theme).await;
            browser.until("its theme", &format!("document.documentElement.dataset.theme === '{theme}'")).await;
            let found = violations(browser).await;
            assert!(found.is_empty(), "{while_}, {}, {theme}: {found:#?}", screen.name);
        }
    }
}

/// The rules that the page breaks, each with its elements.
async fn violations(browser: &Browser) -> Vec<String> {
    let found = browser
        .resolved(&format!(
            "axe.run(document, {{ runOnly: {RULES}, resultTypes: ['violations'] }}).then(found => ({{
               checked: found.passes.length,
               violations: found.violations.map(one => `${{one.id}}: ${{one.help}}: ${{one.nodes.map(node =>
                 node.html.slice(0, 150) + ' ' + node.failureSummary).join('; ')}}`) }}))"
        ))
        .await;
    assert!(found["checked"].as_u64().is_some_and(|checked| checked > 20), "it checked nothing: {found}");
    serde_json::from_value(found["violations"].clone()).expect("a list")
}

/// The script of axe-core; `None`, with a message, where it is not installed.
fn axe_core() -> Option<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/axe");
    let script = std::fs::read_to_string(dir.join("node_modules/axe-core/axe.min.js")).ok();
    if script.is_none() {
        eprintln!("skipped: no axe-core; install it with `npm ci --prefix examples/kv/tests/axe`");
    }
    script
}

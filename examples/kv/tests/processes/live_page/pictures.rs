//! The pictures of the page in the documentation, taken anew from a real cluster:
//!
//! `cargo test -p quorate-kv --test processes pictures -- --ignored --nocapture`

use crate::{
    browser::{Browser, DESKTOP, PHONE, Screen, WALL},
    support::BINARY,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// No picture is larger; `pngquant` (a Debian package), if it is installed, takes about two thirds away.
const BYTES_MAX: u64 = 150 * 1024;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it replaces the pictures of the documentation"]
async fn the_pictures_of_the_documentation_are_taken_anew() {
    let Some(browser) = Browser::start().await else { return };
    let dir = tempfile::tempdir().expect("temporary directory");
    let (_demo, url) = demo(&dir.path().join("demo")).await;
    browser.devtools("Emulation.setScrollbarsHidden", &json!({ "hidden": true })).await;
    let tall = |screen: Screen, height| Screen { height, ..screen };

    browser.show_on(DESKTOP, "light").await;
    browser.open(&url).await;
    browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
    let mut leader = leader_of(&browser).await;
    // The page sees an election whole if the node that serves it lives on.
    while browser.run("return page.state.served_by === page.state.leader").await == true {
        fault(&browser, &json!({ "fault": "kill", "node": leader })).await;
        browser.until("another leader", &format!("page.state.leader && page.state.leader !== {leader}")).await;
        fault(&browser, &json!({ "fault": "start", "node": leader })).await;
        browser.open(&url).await;
        browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
        leader = leader_of(&browser).await;
    }
    // A minute with two leaders: one that is killed, and its successor.
    browser.until("some writes", "record.series.length > 25").await;
    fault(&browser, &json!({ "fault": "kill", "node": leader })).await;
    browser.until("another leader", &format!("page.state.leader && page.state.leader !== {leader}")).await;
    let elected = "record.events.findLast(one => one.kind === 'leader_elected').at";
    browser
        .until("some of its term", &format!("record.series.at(-1).writes > 0 && record.newest - {elected} > 12000"))
        .await;

    browser.show_on(WALL, "dark").await;
    browser.until("its layout", "innerWidth === 1920").await;
    picture(&browser, "wall-dark").await;

    // The moment at which the most votes are on their way, if possible one without a leader.
    browser.show_on(tall(DESKTOP, 1270), "dark").await;
    browser
        .run(&format!(
            "seek({elected});
             const moments = Array.from({{ length: 300 }}, (_, i) => {elected} - 1000 + 5 * i);
             const worth = at => ballotsAt(at).length + (record.stateAt(at).leader ? 0 : .5);
             seek(moments.reduce((best, at) => worth(at) > worth(best) ? at : best) + 12);"
        ))
        .await;
    browser.until("an election", "!page.live && document.querySelector('.pkt.ballot:not([hidden])')").await;
    picture(&browser, "desktop-dark").await;
    browser.show_at(PHONE, "dark", 2).await;
    browser.until("its layout", "innerWidth === 390").await;
    picture(&browser, "phone-dark").await;
    browser.run("goLive()").await;

    fault(&browser, &json!({ "fault": "start", "node": leader })).await;
    browser.until("all nodes", "word().includes('Healthy') && !document.querySelector('.node.down')").await;
    browser.until("its calm", "record.newest - record.events.at(-1).at > 6000").await;
    browser.show_on(tall(DESKTOP, 1270), "light").await;
    browser.until("its layout", "innerWidth === 1280").await;
    picture(&browser, "desktop-light").await;
    browser.show_at(PHONE, "light", 2).await;
    browser.until("its layout", "innerWidth === 390").await;
    picture(&browser, "phone-light").await;
}

async fn leader_of(browser: &Browser) -> u64 {
    browser.until("a leader", "page.state.leader").await;
    browser.run("return page.state.leader").await.as_u64().expect("a leader")
}

/// A demo with a page, and its address.
async fn demo(dir: &Path) -> (Child, String) {
    let mut command = Command::new(BINARY);
    command.args(["--json", "demo", "--page", "--dir"]).arg(dir).kill_on_drop(true);
    let mut demo = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("a line");
    let said: Value = serde_json::from_str(&line).expect("JSON");
    (demo, said["page"].as_str().expect("an address").to_owned())
}

async fn fault(browser: &Browser, fault: &Value) {
    let done = browser
        .resolved(&format!(
            "fetch('/live/faults', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }},
               body: JSON.stringify({fault}) }}).then(answer => answer.status)"
        ))
        .await;
    assert_eq!(done, 204, "{fault}");
}

async fn picture(browser: &Browser, name: &str) {
    // All that is drawn at intervals is drawn, and packets stand where they began.
    browser.run("draw(); document.getAnimations().forEach(one => { one.pause(); one.currentTime = 400; });").await;
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("images/{name}.png"));
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("made");
    browser.picture(&file).await;
    browser.run("document.getAnimations().forEach(one => one.play())").await;
    let reduce = ["--force", "--strip", "--skip-if-larger", "--quality", "70-95", "--ext", ".png"];
    match Command::new("pngquant").args(reduce).arg(&file).status().await {
        Ok(status) => println!("{name}: reduced, {status}"),
        Err(_) => println!("{name}: not reduced, no pngquant in PATH"),
    }
    let bytes = std::fs::metadata(&file).expect("it exists").len();
    assert!(bytes <= BYTES_MAX, "{name} has {bytes} bytes");
}

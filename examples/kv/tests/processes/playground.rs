//! The playground as a process, and its page in a real browser.

use crate::{browser::Browser, demo::ask};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// A playground, and the address of its page.
async fn playground(seed: &str) -> (Child, String) {
    let mut command = Command::new(crate::support::BINARY);
    command.args(["--json", "playground", "--seed", seed]).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut process = command.spawn().expect("runs");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("a line");
    let said: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(said["seed"].to_string(), seed);
    (process, said["page"].as_str().expect("an address").to_owned())
}

async fn ends_with_success(mut process: Child, signal: Signal) {
    let id = i32::try_from(process.id().expect("it runs")).expect("a process");
    kill_process(Pid::from_raw(id).expect("a process"), signal).expect("it runs");
    assert!(process.wait().await.expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playground_is_for_its_own_pages_alone_and_ends_with_success() {
    let (process, url) = playground("7").await;
    let host = url.strip_prefix("http://").expect("HTTP").trim_end_matches('/');
    let page = ask(host, "GET / HTTP/1.1", &[], "").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<title>Quorate</title>"), "{page}");
    let foreign = ask(host, "GET /live HTTP/1.1", &["sec-fetch-site: cross-site"], "").await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");

    // The stream begins with the whole page.
    let mut stream = TcpStream::connect(host).await.expect("it listens");
    stream.write_all(format!("GET /live HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.expect("sent");
    let mut begin = Vec::new();
    while !String::from_utf8_lossy(&begin).contains("\"playground\":{") {
        assert!(stream.read_buf(&mut begin).await.expect("readable") > 0, "{}", String::from_utf8_lossy(&begin));
    }
    assert!(String::from_utf8_lossy(&begin).contains("event: snapshot\n"));

    let json = "content-type: application/json";
    let own = format!("origin: http://{host}");
    for (what, headers, body, status) in [
        ("time stands", &[json, &own][..], r#"{"command":"pause"}"#, "204"),
        ("a step", &[json, &own], r#"{"command":"step"}"#, "204"),
        ("a step back", &[json, &own], r#"{"command":"back"}"#, "204"),
        ("a speed", &[json, &own], r#"{"command":"speed","of":0.25}"#, "204"),
        ("no such speed", &[json, &own], r#"{"command":"speed","of":1e9}"#, "400"),
        ("a crash", &[json, &own], r#"{"deed":"crash","node":1}"#, "204"),
        ("it is down", &[json, &own], r#"{"deed":"crash","node":1}"#, "400"),
        ("it starts", &[json, &own], r#"{"deed":"start","node":1}"#, "204"),
        ("a trap", &[json, &own], r#"{"deed":"crash_before_write","node":2}"#, "204"),
        ("no such node", &[json, &own], r#"{"deed":"timeout","node":9}"#, "400"),
        ("no such message", &[json, &own], r#"{"deed":"drop","message":99999}"#, "400"),
        ("a scenario", &[json, &own], r#"{"command":"scenario","name":"split_vote"}"#, "204"),
        ("no such scenario", &[json, &own], r#"{"command":"scenario","name":"melt"}"#, "400"),
        ("a page of another site", &[json, "origin: http://evil.example"], r#"{"command":"step"}"#, "403"),
        ("a form", &["content-type: text/plain"], r#"{"command":"step"}"#, "415"),
    ] {
        let answer = ask(host, "POST /live/play HTTP/1.1", headers, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
    }
    ends_with_success(process, Signal::INT).await;
    ends_with_success(playground("8").await.0, Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_playground_elects_steps_rewinds_and_tells_a_split_vote() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let (process, url) = playground("7").await;
    browser.open(&url).await;
    browser.until("an election", "/^Node \\d leads term \\d/.test(title())").await;
    browser
        .until("it in the story", "story().some(text => /Node \\d leads term \\d+, with the votes of/.test(text))")
        .await;

    // Time stands; a step and a step back lead to the same page.
    let click = async |label: &str| {
        let script = format!(
            "const button = [...document.querySelectorAll('#steps button, .scenes button')].find(button => \
             button.textContent === '{label}'); button.click();"
        );
        browser.run(&script).await;
    };
    let moves = "Number(at('moves').match(/move ([\\d,]+)/)[1].replaceAll(',', ''))";
    let shown = "JSON.stringify([at('says'), at('next'), at('rows'), [1, 2, 3, 4, 5].map(label), at('moves'), \
                 [...document.querySelectorAll('#flights li .says')].map(row => row.textContent), story().length])";
    click("Pause").await;
    browser.until("that time stands", "at('next').startsWith('Next:')").await;
    let before = browser.run(&format!("return {shown}")).await;
    let at = browser.run(&format!("return {moves}")).await.as_u64().expect("a number");
    click("Step").await;
    browser.until("a step", &format!("{moves} === {} && at('last').startsWith('Last:')", at + 1)).await;
    for back in [at, at - 1] {
        click("Step back").await;
        browser.until("a step back", &format!("{moves} === {back}")).await;
    }
    click("Step").await;
    browser.until("the same page", &format!("{moves} === {at}")).await;
    let again = browser.run(&format!("return {shown}")).await;
    let parts = |shown: &Value| -> Vec<Value> { serde_json::from_str(shown.as_str().expect("text")).expect("JSON") };
    // Time stood a little after the last move, so timers and the clock differ; all else is the same.
    let (before, again) = (parts(&before), parts(&again));
    for part in [0, 1, 2, 5, 6] {
        assert_eq!(before[part], again[part]);
    }

    // A message on its way can be lost, with the keyboard, too.
    while browser.run("return document.querySelectorAll('#flights li').length").await == 0 {
        let at = browser.run(&format!("return {moves}")).await.as_u64().expect("a number");
        click("Step").await;
        browser.until("a step", &format!("{moves} > {at}")).await;
    }
    let first = "document.querySelector('#flights li')";
    browser.run(&format!("window.lost = {first}; {first}.querySelector('[data-deed=drop]').focus()")).await;
    browser.run("document.activeElement.click()").await;
    browser.until("that it is gone", "!window.lost.isConnected").await;

    // A split vote, step by step.
    click("Split vote").await;
    browser.until("the scenario", "at('scene-says').includes('two candidates share the votes')").await;
    click("Pause").await;
    browser.until("that time stands", "at('next').startsWith('Next:')").await;
    for _ in 0..400 {
        if browser.run("return at('scene-now').includes('The vote is split')").await == true {
            break;
        }
        let at = browser.run(&format!("return {moves}")).await.as_u64().expect("a number");
        click("Step").await;
        browser.until("a step", &format!("{moves} > {at}")).await;
    }
    browser
        .until("the split in a sentence", "/The votes of term \\d+ are split between nodes 2 and 3/.test(title())")
        .await;
    browser.until("the votes of both", "[2, 3].every(id => label(id).includes('2 of 3 votes, 2 no'))").await;
    browser.until("the votes in the story", "story().some(text => /Node 4 votes for node 2/.test(text))").await;
    browser.until("the other ones", "story().some(text => /Node 5 votes for node 3/.test(text))").await;
    click("Run").await;
    browser.until("a leader of a later term", "/^Node [2-5] leads term ([3-9]|\\d\\d)/.test(title())").await;
    browser.until("the reason", "story().some(text => /alone for term \\d+: no majority in time/.test(text))").await;

    // Logs that differ are boxes with terms, as in the paper.
    click("Logs that differ").await;
    browser.until("conflicts", "document.querySelectorAll('#rows .box.odd').length > 0").await;
    browser.until("equal logs", "at('scene-now').includes('All logs are equal')").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
    ends_with_success(process, Signal::INT).await;
}

//! The live page in a real browser: Chromium, driven over WebDriver. Skipped with a message where
//! `chromedriver` is not installed, or its browser does not start; `.ci/run` installs both.

use crate::support::{PATIENCE, cluster};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

/// The interval at which the browser is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A page of this width is a desktop's, and one of the other a phone's.
const WIDTHS: [u32; 2] = [1280, 390];

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_an_election_without_reload_and_survives_the_death_of_its_own_node() {
    let Some(browser) = Browser::start().await else {
        return;
    };
    let mut cluster = cluster(3).await;
    let (leader, others) = cluster.roles().await;
    browser.open(&cluster.endpoint(others[0])).await;
    browser.until("a healthy cluster", "word().includes('Healthy') && rings() === 3").await;
    browser.until("its leader", &format!("title().startsWith('Node {leader} leads term')")).await;
    // It would be gone after a reload.
    browser.run("window.opened = true").await;

    cluster.kill(leader).await.expect("it ran");
    browser.until("another leader", &format!("/^Node (?!{leader})\\d+ leads term/.test(title())")).await;
    browser.until("the node that is gone", &format!("label({leader}).includes('No answer')")).await;
    browser.until("the election in the story", "story().some(text => / leads? term \\d+/.test(text))").await;
    assert_eq!(browser.run("return window.opened === true").await, true, "the page was loaded again");

    cluster.start_node(leader).await.expect("it starts");
    browser.until("all nodes", "word().includes('Healthy')").await;
    cluster.kill(others[0]).await.expect("it ran");
    browser.until("another node that serves", &format!("/from node (?!{})\\d/.test(served())", others[0])).await;
    browser.until("the death of the node that served", &format!("label({}).includes('No answer')", others[0])).await;
    assert_eq!(browser.run("return window.opened === true").await, true, "the page was loaded again");

    for width in WIDTHS {
        browser.resize(width).await;
        let wide = browser.run("return document.documentElement.scrollWidth <= innerWidth").await;
        assert_eq!(wide, true, "the page is wider than {width} pixels");
    }
    // Each element explains itself with the keyboard, too.
    browser.run("document.querySelector('.node').focus()").await;
    browser.until("an explanation", "!document.getElementById('tip').hidden").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

/// Functions that the conditions of the tests use.
const FUNCTIONS: &str = "
    const at = id => document.getElementById(id)?.textContent ?? '';
    const word = () => at('word'), title = () => at('says'), served = () => at('conn');
    const rings = () => document.querySelectorAll('.node').length;
    const label = id => document.querySelector(`[data-node=\"${id}\"]`)?.textContent ?? '';
    const story = () => [...document.querySelectorAll('#list li p')].map(text => text.textContent);
";

/// A browser without a window.
struct Browser {
    host: String,
    session: String,
    _driver: Child,
}

impl Browser {
    async fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut driver = match command.spawn() {
            Ok(driver) => driver,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: no chromedriver in PATH (Debian package chromium-driver)");
                return None;
            }
            Err(error) => panic!("chromedriver does not run: {error}"),
        };
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port: u16 = loop {
            let line = lines.next_line().await.expect("text").expect("chromedriver ended");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').parse().expect("a port");
            }
        };
        // Nothing that it says later may fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let host = format!("127.0.0.1:{port}");
        let options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"
        ] });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let body = json!({ "capabilities": { "alwaysMatch": wanted } });
        let answer = ask(&host, "POST", "/session", &body).await;
        let Some(session) = answer["sessionId"].as_str().map(ToOwned::to_owned) else {
            eprintln!("skipped: no browser starts here: {answer}");
            return None;
        };
        Some(Self { host, session, _driver: driver })
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        ask(&self.host, "POST", &format!("/session/{}/{path}", self.session), body).await
    }

    async fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    async fn resize(&self, width: u32) {
        self.command("window/rect", &json!({ "width": width, "height": 900 })).await;
    }

    /// Runs a script in the page, and returns its value.
    async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": format!("{FUNCTIONS}{script}"), "args": [] })).await
    }

    /// Waits until a condition holds in the page.
    async fn until(&self, what: &str, condition: &str) {
        let deadline = Instant::now() + PATIENCE * 2;
        while self.run(&format!("return Boolean({condition})")).await != true {
            if Instant::now() > deadline {
                let text = self.run("return document.body.innerText").await;
                panic!("{what}: not in time ({condition}); errors {:?}; the page says {text}", self.errors().await);
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// The errors in the browser's console, but for connections that nodes no longer answer.
    async fn errors(&self) -> Vec<String> {
        let log = self.command("se/log", &json!({ "type": "browser" })).await;
        let entries = log.as_array().expect("a list").iter();
        let errors = entries.filter(|entry| entry["level"] == "SEVERE" && entry["source"] != "network");
        errors.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    /// Chromium ends with its session; `kill_on_drop` alone would leave it.
    fn drop(&mut self) {
        let request =
            format!("DELETE /session/{} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.session, self.host);
        if let Ok(mut stream) = std::net::TcpStream::connect(&self.host) {
            let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
            let _ = std::io::Read::read(&mut stream, &mut [0; 64]);
        }
    }
}

/// A WebDriver command; its value.
async fn ask(host: &str, method: &str, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.expect("chromedriver listens");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut stream = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    // It keeps the connection open, so the end of an answer is known by its length alone.
    while stream.read_line(&mut line).await.expect("an answer") > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("a body");
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    answer["value"].clone()
}

//! A real browser: Chromium without a window, driven over WebDriver and the Chrome DevTools protocol. Tests skip with a
//! message where `chromedriver` is not installed, or its browser does not start; `.ci/run` installs both.

use crate::support::PATIENCE;
use serde_json::{Value, json};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

/// The interval at which the browser is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The time limit of a script in the page.
const SCRIPT_MS: u32 = 120_000;

/// The size of a page, in CSS pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) name: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

pub(crate) const PHONE: Screen = Screen { name: "phone", width: 390, height: 844 };
pub(crate) const DESKTOP: Screen = Screen { name: "desktop", width: 1280, height: 900 };
pub(crate) const WALL: Screen = Screen { name: "wall", width: 1920, height: 1080 };
pub(crate) const SCREENS: [Screen; 3] = [PHONE, DESKTOP, WALL];
pub(crate) const THEMES: [&str; 2] = ["light", "dark"];

/// Functions that the conditions of the tests use.
const FUNCTIONS: &str = "
    const at = id => document.getElementById(id)?.textContent ?? '';
    const word = () => at('word'), title = () => at('says'), served = () => at('conn');
    const rings = () => document.querySelectorAll('.node').length;
    const label = id => document.querySelector(`[data-node=\"${id}\"]`)?.textContent ?? '';
    const story = () => [...document.querySelectorAll('#list li p')].map(text => text.textContent);
    const tip = () => document.getElementById('tip').hidden ? '' : at('tip');
";

pub(crate) struct Browser {
    host: String,
    session: String,
    _driver: Child,
}

impl Browser {
    /// `None`, with a message, where there is no browser.
    pub(crate) async fn start() -> Option<Self> {
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
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": SCRIPT_MS } });
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

    pub(crate) async fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url })).await;
    }

    /// Gives the page this size, and the settings of a system with this theme.
    pub(crate) async fn show_on(&self, screen: Screen, theme: &str) {
        self.show_at(screen, theme, 1).await;
    }

    /// The same on a screen with so many pixels in one of CSS.
    pub(crate) async fn show_at(&self, screen: Screen, theme: &str, scale: u32) {
        let Screen { width, height, .. } = screen;
        let is_phone = width < 640;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics).await;
        self.settings(theme, "no-preference").await;
    }

    /// The settings of the system that a page can ask for.
    pub(crate) async fn settings(&self, theme: &str, reduced_motion: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": theme },
            { "name": "prefers-reduced-motion", "value": reduced_motion }
        ]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features })).await;
    }

    /// Runs a script in the page, and returns its value.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": format!("{FUNCTIONS}{script}"), "args": [] })).await
    }

    /// Evaluates an expression whose value is a promise, and returns what it resolves to.
    pub(crate) async fn resolved(&self, promise: &str) -> Value {
        let script = format!(
            "{FUNCTIONS} const tell = arguments[arguments.length - 1];
             ({promise}).then(tell, error => tell({{ error: String(error) }}));"
        );
        let value = self.command("execute/async", &json!({ "script": script, "args": [] })).await;
        assert!(value.get("error").is_none(), "{promise}: {value}");
        value
    }

    /// A command of the Chrome DevTools protocol; its result.
    pub(crate) async fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let result = self.command("goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await;
        assert!(result.get("error").is_none(), "{command}: {result}");
        result
    }

    /// Presses a key, by its name and its number, and lets it go.
    pub(crate) async fn press(&self, key: &str, number: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number });
            self.devtools("Input.dispatchKeyEvent", &event).await;
        }
    }

    /// Saves a picture of the screen.
    pub(crate) async fn picture(&self, file: &Path) {
        let shot = self.devtools("Page.captureScreenshot", &json!({ "format": "png" })).await;
        let bytes = shot["data"].as_str().expect("a picture").as_bytes();
        std::fs::write(file, data_encoding::BASE64.decode(bytes).expect("base64")).expect("written");
    }

    /// Waits until a condition holds in the page.
    pub(crate) async fn until(&self, what: &str, condition: &str) {
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
    pub(crate) async fn errors(&self) -> Vec<String> {
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

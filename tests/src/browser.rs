//! [`Browser`]: headless Chromium, driven over WebDriver.

use std::{
    env, fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    error::CmdError,
    wd::{WebDriverCompatibleCommand, WindowHandle},
};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
};

use crate::within;

/// A browser of its own, with a profile of its own, for one person. It is ended when it is dropped.
///
/// What waits here waits for 20 seconds and then panics, with a screenshot among the artifacts.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    _process: Process,
}

/// Colour scheme that the visitor prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Dark text on light ground.
    Light,
    /// Light text on dark ground.
    Dark,
}

/// Screen of the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// 1440 x 900.
    Desktop,
    /// 390 x 844, a touch screen.
    Phone,
}

impl Screen {
    /// Width and height in CSS pixels.
    pub fn size(self) -> (u32, u32) {
        match self {
            Self::Desktop => (1440, 900),
            Self::Phone => (390, 844),
        }
    }
}

impl Browser {
    /// Starts a browser with one empty tab.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a browser with further switches, such as `--host-resolver-rules=MAP *.test 127.0.0.1`.
    pub async fn start_with(switches: &[&str]) -> Self {
        let process = Process::start().await;
        let mut options = json!({ "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Without its driver at the other end of the pipe Chromium exits, however the driver has ended.
            "--remote-debugging-pipe",
            format!("--user-data-dir={}", process.profile.path().display()),
        ] });
        options["args"].as_array_mut().unwrap().extend(switches.iter().map(|&switch| json!(switch)));
        let capabilities = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().unwrap().clone());
        let driver = format!("http://127.0.0.1:{}", process.port);
        let client = within("Chromium to start", builder.connect(&driver))
            .await
            .unwrap_or_else(|error| panic!("Chromium does not start: {error}\n{PACKAGES}"));
        let browser = Self { client, _process: process };
        browser.show_on(Screen::Desktop).await;
        browser
    }

    /// Goes to an address.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.client.refresh().await.unwrap();
    }

    /// Opens a further tab and turns to it. Tabs share the profile, but not `sessionStorage`.
    pub async fn open_tab(&self) -> WindowHandle {
        let tab = self.client.new_window(true).await.unwrap().handle;
        self.turn_to(&tab).await;
        tab
    }

    /// The tab that everything here acts on.
    pub async fn tab(&self) -> WindowHandle {
        self.client.window().await.unwrap()
    }

    /// Turns to a tab.
    pub async fn turn_to(&self, tab: &WindowHandle) {
        self.client.switch_to_window(tab.clone()).await.unwrap();
    }

    /// Closes the tab and turns to another.
    pub async fn close_tab(&self, next: &WindowHandle) {
        self.client.close_window().await.unwrap();
        self.turn_to(next).await;
    }

    /// Runs a script as the body of a function and returns what it returns; a promise is awaited.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        let run = self.client.execute(script, arguments.to_vec());
        run.await.unwrap_or_else(|error| panic!("{error}\nin {script}"))
    }

    /// Waits until a JavaScript expression is truthy and returns its value.
    pub async fn until(&self, expression: &str) -> Value {
        self.keep_trying(expression, async || {
            let script = format!("return ({expression});");
            let value = self.client.execute(&script, Vec::new()).await.map_err(|error| error.to_string())?;
            let falsy = matches!(&value, Value::Null | Value::Bool(false)) || value == 0 || value == "";
            if falsy { Err(format!("it is {value}")) } else { Ok(value) }
        })
        .await
    }

    /// Waits until an element is visible that matches a selector and has a text in it.
    pub async fn sees(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.until(&format!(
            "[...document.querySelectorAll({selector})]
                .some((each) => each.checkVisibility() && each.textContent.includes({text}))"
        ))
        .await;
    }

    /// Number of elements that match a selector and contain a text.
    pub async fn count(&self, selector: &str, text: &str) -> u64 {
        let script = "const [selector, text] = arguments;
            return [...document.querySelectorAll(selector)].filter((each) => each.textContent.includes(text)).length;";
        self.run(script, &[json!(selector), json!(text)]).await.as_u64().unwrap()
    }

    /// Clicks on an element as soon as it is there and nothing covers it.
    pub async fn click(&self, selector: &str) {
        self.keep_trying(&format!("a click on {selector}"), async || {
            let element =
                self.client.find(Locator::Css(selector)).await.map_err(|error| error.to_string())?;
            element.click().await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// Types a text into an input in place of what it holds.
    pub async fn fill(&self, selector: &str, text: &str) {
        let input = self.client.find(Locator::Css(selector)).await.unwrap();
        input.clear().await.unwrap();
        input.send_keys(text).await.unwrap();
    }

    /// Presses a key of the keyboard, by its name in `KeyboardEvent.key`: `Tab`, `Escape`, `Enter`.
    pub async fn press(&self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => panic!("unknown key {key}"),
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.devtools("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Chooses the option of a `select` by its value, as soon as it is there.
    pub async fn choose(&self, selector: &str, value: &str) {
        self.click(&format!("{selector} option[value='{value}']")).await;
    }

    /// Pretends to be another screen.
    pub async fn show_on(&self, screen: Screen) {
        let (width, height) = screen.size();
        self.show_at(screen, width, height).await;
    }

    /// Pretends to prefer other colours.
    pub async fn prefer(&self, scheme: Scheme) {
        let value = match scheme {
            Scheme::Light => "light",
            Scheme::Dark => "dark",
        };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// Pretends to be set to another language, a BCP 47 tag.
    pub async fn speak(&self, language: &str) {
        let agent = self.run("return navigator.userAgent;", &[]).await;
        self.devtools(
            "Emulation.setUserAgentOverride",
            json!({ "userAgent": agent, "acceptLanguage": language }),
        )
        .await;
    }

    /// Console output since the last call: errors, and complaints of the browser itself, such
    /// as a request that failed or that the page's content security policy forbids.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.vendor("se/log", json!({ "type": "browser" })).await;
        let serious = log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE");
        serious.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Writes a PNG of what is in view to the folder that `REALTIME_ARTIFACTS` names, or to `artifacts` in the target
    /// directory.
    pub async fn screenshot(&self, name: &str) {
        self.capture(name).await.unwrap();
    }

    /// As [`Self::screenshot`], but of the page in all its height.
    pub async fn screenshot_whole(&self, screen: Screen, name: &str) {
        let height = self.run("return document.documentElement.scrollHeight;", &[]).await;
        self.show_at(screen, screen.size().0, height.as_u64().unwrap().try_into().unwrap()).await;
        self.screenshot(name).await;
        self.show_on(screen).await;
    }

    async fn capture(&self, name: &str) -> Result<(), CmdError> {
        // Colours on their way from one scheme to the other belong to neither.
        let settled =
            "const moving = document.getAnimations().filter((each) => each instanceof CSSTransition);
            return Promise.allSettled(moving.map((each) => each.finished)).then(() => true);";
        self.client.execute(settled, Vec::new()).await?;
        let png = self.client.screenshot().await?;
        let folder = artifacts();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name).with_extension("png"), png).unwrap();
        Ok(())
    }

    async fn show_at(&self, screen: Screen, width: u32, height: u32) {
        let phone = screen == Screen::Phone;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        self.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": phone })).await;
    }

    async fn devtools(&self, command: &str, params: Value) {
        self.vendor("goog/cdp/execute", json!({ "cmd": command, "params": params })).await;
    }

    async fn vendor(&self, path: &'static str, body: Value) -> Value {
        self.client.issue_cmd(Vendor { path, body }).await.unwrap()
    }

    async fn keep_trying<T>(&self, what: &str, mut attempt: impl AsyncFnMut() -> Result<T, String>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(problem) => {
                    let test = std::thread::current().name().unwrap_or("test").to_owned();
                    self.capture(&format!("failure-{test}")).await.ok();
                    panic!("waited in vain for {what}: {problem}");
                }
            }
        }
    }
}

const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
const PACKAGES: &str = "these tests need the apt packages `chromium` and `chromium-driver`";

/// A command beyond the WebDriver standard.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, <Url as std::str::FromStr>::Err> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// The driver's process, and with it the browser's.
#[derive(Debug)]
struct Process {
    driver: Child,
    port: u16,
    profile: TempDir,
}

impl Process {
    /// The port that a driver takes has to be free for IPv4 and for IPv6, and it checks the first only: when the other
    /// is taken it exits, and another attempt chooses another port.
    async fn start() -> Self {
        let mut said = Vec::new();
        for _ in 0..5 {
            match Self::try_start().await {
                Ok(process) => return process,
                Err(lines) => said.extend(lines),
            }
        }
        panic!("chromedriver does not start: {said:#?}");
    }

    /// Starts a driver; if it exits, returns its output.
    async fn try_start() -> Result<Self, Vec<String>> {
        let mut driver = tokio::process::Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver does not start: {error}\n{PACKAGES}"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = within("chromedriver to start", async {
            let started = "ChromeDriver was started successfully on port ";
            let mut said = Vec::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(port) = line.strip_prefix(started) {
                    return Ok(port.trim_end_matches('.').parse().unwrap());
                }
                said.push(line);
            }
            Err(said)
        })
        .await?;
        // A full pipe would stop the driver.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = tempfile::Builder::new().prefix("realtime-browser-").tempdir().unwrap();
        Ok(Self { driver, port, profile })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let family = self.driver.id().map(family).unwrap_or_default();
        let mut kill = std::process::Command::new("kill");
        // The process may have exited already.
        kill.arg("-KILL").args(family.iter().map(u32::to_string)).stderr(Stdio::null()).status().ok();
        // As long as any of them runs, the profile can't be removed.
        let deadline = Instant::now() + LIMIT;
        while family.iter().any(|id| runs(*id)) && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
    }
}

/// A process and all that descend from it.
fn family(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    let mut known = 0;
    while let Some(id) = family.get(known) {
        let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        family.extend(children);
        known += 1;
    }
    family
}

/// Returns whether a process runs; a zombie has no command line.
fn runs(id: u32) -> bool {
    fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|command| !command.is_empty())
}

/// `target/artifacts`, unless the environment names another directory; the test is `target/<profile>/deps/<test>`.
fn artifacts() -> PathBuf {
    env::var_os("REALTIME_ARTIFACTS").map_or_else(
        || env::current_exe().unwrap().ancestors().nth(3).unwrap().join("artifacts"),
        PathBuf::from,
    )
}

//! [`ReverseProxy`]: nginx or HAProxy, configured by the files of `apps/demo/deploy`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use crate::{Authority, Server, free_port, within};

/// A kind of proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// nginx, the Debian package `nginx-light`.
    Nginx,
    /// HAProxy, the Debian package `haproxy`.
    HaProxy,
}

/// A node as its proxy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Upstream {
    /// The port for clients.
    pub public: u16,
    /// The port of `server.internal`.
    pub internal: u16,
}

/// A proxy in front of two nodes, in the foreground, with all of its files in a folder of its own. It runs the files that
/// are deployed; ports, paths and names of nodes are replaced, and TLS is switched on. It is ended when it is dropped.
#[derive(Debug)]
pub struct ReverseProxy {
    child: Child,
    port: u16,
    tls: u16,
    internal: u16,
    authority: Authority,
    folder: TempDir,
}

impl ReverseProxy {
    /// Starts a proxy with further replacements in its files, such as `("60s", "2s")`.
    pub async fn start(kind: ProxyKind, nodes: [Upstream; 2], replacements: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The workers of an nginx that was started as root run as another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (port, tls, internal) = (free_port(), free_port(), free_port());
        let authority = Authority::new();
        let ports = Ports { public: port, tls, internal, nodes };
        let child = match kind {
            ProxyKind::Nginx => nginx(folder.path(), &authority, &ports, replacements),
            ProxyKind::HaProxy => haproxy(folder.path(), &authority, &ports, replacements),
        };
        let mut proxy = Self { child, port, tls, internal, authority, folder };
        within("a proxy to listen", async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                let ended = proxy.child.try_wait().unwrap();
                assert!(ended.is_none(), "{kind:?} has ended: {}", proxy.logs());
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        proxy
    }

    /// The port for clients with TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls
    }

    /// The signer of its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// An address for backends.
    pub fn internal_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.internal)
    }

    /// All that it has logged.
    pub fn logs(&self) -> String {
        let files = fs::read_dir(self.folder.path().join("log")).unwrap();
        let texts = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
    }
}

impl Server for ReverseProxy {
    fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        // nginx ends its workers at this signal; killed, it would leave them behind.
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        self.child.wait().ok();
    }
}

struct Ports {
    public: u16,
    tls: u16,
    internal: u16,
    nodes: [Upstream; 2],
}

impl Ports {
    /// Names of nodes in the files, and what they are here.
    fn nodes(&self) -> Vec<(String, String)> {
        let names = ["node-a", "node-b"].into_iter().zip(self.nodes);
        let pairs = names.flat_map(|(name, Upstream { public, internal })| {
            [(format!("{name}:8080"), local(public)), (format!("{name}:9081"), local(internal))]
        });
        pairs.collect()
    }
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A file of `apps/demo/deploy`.
fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps/demo/deploy").join(file)
}

fn nginx(folder: &Path, authority: &Authority, ports: &Ports, replacements: &[(&str, &str)]) -> Child {
    let at = |path: &str| folder.join(path).to_str().unwrap().to_owned();
    for path in ["log", "etc/realtime", "etc/certificates", "temp"] {
        fs::create_dir_all(folder.join(path)).unwrap();
    }
    for (from, to) in [("server.crt", "fullchain.pem"), ("server.key", "privkey.pem")] {
        fs::copy(authority.path(from), folder.join("etc/certificates").join(to)).unwrap();
    }
    // Where the package has these folders, only root may write.
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {};\n", at(&format!("temp/{name}"))))
        .concat();
    let mut edits = ports.nodes();
    edits.extend([
        ("http {\n".to_owned(), format!("http {{\n{temporary}")),
        ("/etc/nginx/".to_owned(), at("etc/")),
        ("/var/log/nginx/".to_owned(), at("log/")),
        ("/run/nginx.pid".to_owned(), at("nginx.pid")),
        ("listen 80;".to_owned(), format!("listen {};", local(ports.public))),
        ("listen 9081;".to_owned(), format!("listen {};", local(ports.internal))),
        ("# include".to_owned(), "include".to_owned()),
    ]);
    // Each belongs to the one file or the other.
    let locations = fs::read_to_string(deployed("nginx/locations.conf")).unwrap();
    let replacements = replacements.iter().map(|&(from, to)| (from.to_owned(), to.to_owned()));
    let (of_locations, others): (Vec<_>, Vec<_>) =
        replacements.partition(|(from, _)| locations.contains(from));
    edits.extend(others);
    copy(&deployed("nginx/nginx.conf"), &folder.join("etc/nginx.conf"), &edits);
    copy(&deployed("nginx/locations.conf"), &folder.join("etc/realtime/locations.conf"), &of_locations);
    let edits = [
        ("/etc/nginx/".to_owned(), at("etc/")),
        ("listen 443 ".to_owned(), format!("listen {} ", local(ports.tls))),
    ];
    copy(&deployed("nginx/tls.conf"), &folder.join("etc/realtime/tls.conf"), &edits);
    let mut nginx = Command::new(program("nginx"));
    nginx.args(["-p", folder.to_str().unwrap(), "-c", &at("etc/nginx.conf"), "-e", &at("log/error.log")]);
    nginx.args(["-g", "daemon off;"]).stdout(Stdio::null()).stderr(Stdio::null());
    nginx.spawn().expect("nginx is installed (apt package nginx-light)")
}

fn haproxy(folder: &Path, authority: &Authority, ports: &Ports, replacements: &[(&str, &str)]) -> Child {
    fs::create_dir(folder.join("log")).unwrap();
    let pem = ["server.crt", "server.key"].map(|file| fs::read(authority.path(file)).unwrap());
    fs::write(folder.join("realtime.pem"), pem.concat()).unwrap();
    let mut edits = ports.nodes();
    edits.extend([
        ("/etc/haproxy/".to_owned(), format!("{}/", folder.display())),
        ("# bind :443".to_owned(), format!("bind {}", local(ports.tls))),
        ("bind :80\n".to_owned(), format!("bind {}\n", local(ports.public))),
        ("bind :9081".to_owned(), format!("bind {}", local(ports.internal))),
    ]);
    edits.extend(replacements.iter().map(|&(from, to)| (from.to_owned(), to.to_owned())));
    copy(&deployed("haproxy/haproxy.cfg"), &folder.join("haproxy.cfg"), &edits);
    copy(&deployed("haproxy/come-back.http"), &folder.join("come-back.http"), &[]);
    let log = fs::File::create(folder.join("log/haproxy.log")).unwrap();
    let mut haproxy = Command::new(program("haproxy"));
    haproxy.args(["-db", "-f"]).arg(folder.join("haproxy.cfg"));
    haproxy.stdout(log.try_clone().unwrap()).stderr(log);
    haproxy.spawn().expect("haproxy is installed (apt package haproxy)")
}

/// Copies a file and replaces what is different here; each text has to be there.
fn copy(from: &Path, to: &Path, replacements: &[(String, String)]) {
    let mut text = fs::read_to_string(from).unwrap();
    for (old, new) in replacements {
        assert!(text.contains(old), "{} has no `{old}`", from.display());
        text = text.replace(old, new);
    }
    fs::write(to, text).unwrap();
}

/// Path of a program that Debian installs where users other than root do not look.
fn program(name: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() { path } else { name.into() }
}

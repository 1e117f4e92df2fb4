//! Programs that people use finish under a limit when it says they should, with every byte in its place.

mod support;

use std::{
    fs,
    path::{Path as FilePath, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use support::{PATIENCE, chadthrottle};
use testbed::{Family, Path, Process, Testbed, require_program};

/// Bytes of the file.
const FILE: u32 = 8_000_000;
/// IP bytes a second.
const LIMIT: &str = "1M";
const LIMIT_BPS: f64 = 1e6;
const PORT: u16 = 8443;

/// A file of random bytes, and a place for its copy.
struct Transfer {
    directory: tempfile::TempDir,
    bed: Testbed,
}

impl Transfer {
    fn new(name: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
        let bed = Testbed::with_path(name, &Path::round_trip(Duration::from_millis(20)))?;
        let transfer = Self { directory, bed };
        let (file, size) = (transfer.path("file"), FILE.to_string());
        fs::create_dir(transfer.path("copies"))?;
        ensure!(
            Command::new("head")
                .args(["-c", &size, "/dev/urandom"])
                .stdout(fs::File::create(file)?)
                .status()?
                .success()
        );
        Ok(transfer)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn server(&self) -> String {
        self.bed.server().address(Family::V4).to_string()
    }

    /// Runs a command that copies a file of this name under a limit, and checks what it did, and for how long. A full
    /// packet of 1500 bytes carries so much of the file. What an empty file takes, no limit explains.
    fn check(&self, option: &str, carried: f64, command: impl Fn(&str) -> Vec<String>) -> anyhow::Result<()> {
        fs::write(self.path("empty"), "")?;
        let besides = self.run(&[option, "1G"], &command("empty"))?;
        let seconds = self.run(&[option, LIMIT], &command("file"))? - besides;
        let expected = f64::from(FILE) * 1500.0 / carried / LIMIT_BPS;
        let share = seconds / expected;
        let program = &command("")[0];
        println!("{option} {program}: {share:.3} of the time: {seconds:.2} s, {besides:.2} s besides");
        ensure!(fs::read(self.path("file"))? == fs::read(self.path("copies/file"))?, "the copy is another");
        ensure!((0.95..1.05).contains(&share), "{seconds} s instead of {expected}");
        Ok(())
    }

    /// How long a command takes under a limit.
    fn run(&self, limit: &[&str; 2], command: &[String]) -> anyhow::Result<f64> {
        let mut run = chadthrottle(&self.bed);
        // It says when it begins: before that the limit is made.
        run.arg("run")
            .args(limit)
            .args(["--", "sh", "-c", "echo begins >&2; exec \"$@\"", "sh"])
            .args(command);
        let process = Process::spawn(&mut run)?;
        process.wait_for_line(|line| line == "begins", PATIENCE)?;
        let start = Instant::now();
        process.success(PATIENCE)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// TCP with timestamps.
const TCP: f64 = 1448.0;
/// QUIC with connection ids of 17 bytes, in datagrams of 1452 bytes.
const QUIC: f64 = 1429.0;

#[test]
fn curl_from_nginx() -> anyhow::Result<()> {
    let transfer = Transfer::new("curl")?;
    let (directory, server) = (transfer.text(""), transfer.server());
    let configuration = format!(
        "daemon off; master_process off; pid {directory}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; \
         fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e; \
         server {{ listen {server}:{PORT}; root {directory}; }} }}"
    );
    fs::write(transfer.path("nginx.conf"), configuration)?;
    let mut nginx = transfer.bed.server().command(require_program("nginx")?);
    let _nginx = Process::spawn(nginx.args(["-p", &directory, "-c"]).arg(transfer.path("nginx.conf")))?;
    let copies = transfer.text("copies");
    wait_for_listener(&transfer.bed)?;
    transfer.check("--download-limit", TCP, |name| {
        let url = format!("http://{server}:{PORT}/{name}");
        let copy = format!("{copies}/{name}");
        ["curl", "--silent", "--show-error", "--fail", "--output", &copy, &url].map(str::to_owned).into()
    })
}

/// Until somebody listens on the server's port, for TCP.
fn wait_for_listener(bed: &Testbed) -> anyhow::Result<()> {
    let to = bed.server().socket_address(Family::V4, PORT);
    testbed::until("the server listens", PATIENCE, || {
        bed.server().run(|| Ok(std::net::TcpStream::connect(to).ok().map(drop)))
    })
}

/// A key pair without a passphrase.
fn key(path: &FilePath) -> anyhow::Result<()> {
    let mut generate = Command::new(require_program("ssh-keygen")?);
    generate.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path);
    ensure!(generate.status()?.success(), "{generate:?}");
    Ok(())
}

#[test]
fn rsync_over_ssh() -> anyhow::Result<()> {
    require_program("rsync")?;
    let transfer = Transfer::new("rsync")?;
    key(&transfer.path("host"))?;
    key(&transfer.path("user"))?;
    let [host, user] = ["host", "user.pub"].map(|name| transfer.text(name));
    let server = transfer.server();
    let configuration = format!(
        "ListenAddress {server}\nPort {PORT}\nHostKey {host}\nAuthorizedKeysFile {user}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nUseDNS no\n"
    );
    fs::write(transfer.path("sshd.conf"), configuration)?;
    // In a mount namespace of its own: it insists on a directory in /run.
    let script = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec \"$@\"";
    let mut sshd = transfer.bed.server().command("unshare");
    sshd.args(["--mount", "sh", "-c", script, "sh"]).arg(require_program("sshd")?).args(["-D", "-e", "-f"]);
    let _sshd = Process::spawn(sshd.arg(transfer.path("sshd.conf")))?;
    wait_for_listener(&transfer.bed)?;
    let ssh = format!(
        "ssh -p {PORT} -i {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -F none",
        transfer.text("user")
    );
    transfer.check("--upload-limit", TCP, |name| {
        let copy = format!("root@{server}:{}", transfer.text("copies/"));
        ["rsync", "--whole-file", "-e", &ssh, &transfer.text(name), &copy].map(str::to_owned).into()
    })
}

#[test]
fn http_3_over_quic() -> anyhow::Result<()> {
    let transfer = Transfer::new("quic")?;
    let (client, server) = (require_program("gtlsclient")?, require_program("gtlsserver")?);
    let [key, certificate, directory] = ["key.pem", "certificate.pem", ""].map(|name| transfer.text(name));
    let mut generate = Command::new(require_program("openssl")?);
    generate.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    generate.args(["-subj", "/CN=server", "-days", "2", "-keyout", &key, "-out", &certificate]);
    ensure!(generate.output()?.status.success(), "{generate:?}");
    let (address, port) = (transfer.server(), PORT.to_string());
    let mut serve = transfer.bed.server().command(server);
    serve.args(["--quiet", "--htdocs", &directory, &address, &port, &key, &certificate]);
    let _server = Process::spawn(&mut serve)?;
    let download = format!("--download={}", transfer.text("copies"));
    let client = client.display().to_string();
    transfer.check("--download-limit", QUIC, |name| {
        let url = format!("https://{address}:{PORT}/{name}");
        [&client, "--quiet", "--exit-on-all-streams-close", &download, &address, &port, &url]
            .map(ToOwned::to_owned)
            .into()
    })
}

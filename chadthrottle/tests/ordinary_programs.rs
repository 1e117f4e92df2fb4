//! What an ordinary user starts under a limit is held, whatever it is made of: flow control asks nothing of a program
//! but that its sockets are the kernel's.
//!
//! The bands are wide, because they must hold on any loaded machine; `cargo xtask bench throttle` has the figures.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path as FilePath, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use support::{BINARY, Everybodys, PATIENCE};
use testbed::{Family, Path, Process, Testbed};

/// Threads that each open so many connections one after the other, and on each send and then receive so many bytes:
/// `ADDRESS CONNECTIONSxSENDxRECEIVE…`. Ends with 7 when all went well.
const EXCHANGE: &str = r#"
use std::{io::{Read, Write}, net::TcpStream, process::exit, thread::spawn};

fn exchange(to: &str, send: u64, receive: u64) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&send.to_be_bytes())?;
    stream.write_all(&receive.to_be_bytes())?;
    std::io::copy(&mut std::io::repeat(1).take(send), &mut stream)?;
    std::io::copy(&mut stream, &mut std::io::sink())
}

fn main() {
    let mut words = std::env::args().skip(1);
    let to = words.next().expect("an address");
    let threads: Vec<_> = words.map(|word| {
        let to = to.clone();
        spawn(move || {
            let numbers: Vec<u64> = word.split('x').map(|number| number.parse().expect("a number")).collect();
            (0..numbers[0]).all(|_| exchange(&to, numbers[1], numbers[2]).is_ok_and(|got| got == numbers[2]))
        })
    }).collect();
    exit(if threads.into_iter().all(|thread| thread.join().is_ok_and(|well| well)) { 7 } else { 1 });
}
"#;

/// That program without a loader: there is no C library that another one could be put in front of.
fn static_program(directory: &FilePath) -> anyhow::Result<PathBuf> {
    let (source, program) = (directory.join("exchange.rs"), directory.join("exchange"));
    std::fs::write(&source, EXCHANGE)?;
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2021", "-Copt-level=2", "-Ctarget-feature=+crt-static", "-o"]);
    let output = rustc.arg(&program).arg(&source).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let headers = Command::new("readelf").args(["--program-headers", "--wide"]).arg(&program).output()?;
    let headers = String::from_utf8(headers.stdout)?;
    assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "it is not static: {headers}");
    Ok(program)
}

/// A place for it that every user can reach.
fn public_directory() -> anyhow::Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody)?;
    Ok(directory)
}

fn bed() -> anyhow::Result<Testbed> {
    Testbed::with_path("programs", &Path::round_trip(Duration::from_millis(20)))
}

/// The other end of the program's connections, for as long as the test runs.
fn serve(bed: &Testbed) -> anyhow::Result<SocketAddr> {
    let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // What goes wrong the program sees, and says so.
            std::thread::spawn(move || answer(stream).ok());
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut number = || {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).map(|()| u64::from_be_bytes(bytes))
    };
    let (receive, send) = (number()?, number()?);
    std::io::copy(&mut (&stream).take(receive), &mut std::io::sink())?;
    std::io::copy(&mut std::io::repeat(1).take(send), &mut stream)?;
    stream.flush()
}

/// `chadthrottle run` by nobody. No backend is chosen: without privilege there is nothing but flow control.
fn run(programs: &Everybodys, bed: &Testbed, limits: &[&str]) -> anyhow::Result<Command> {
    let mut command = programs.command(bed, FilePath::new(BINARY))?;
    command.arg("run").args(limits).arg("--");
    Ok(command)
}

#[test]
fn a_static_program_is_held_both_ways_and_its_status_is_passed_on() -> anyhow::Result<()> {
    let (programs, directory) = (Everybodys::new()?, public_directory()?);
    let program = static_program(directory.path())?;
    let bed = bed()?;
    let to = serve(&bed)?.to_string();
    let mut command = run(&programs, &bed, &["--upload-limit", "1M", "--download-limit", "2M"])?;
    let start = Instant::now();
    // Two seconds up, then two seconds down.
    let mut run = Process::spawn(command.arg(&program).args([&to, "1x2000000x4000000"]))?;
    assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(7), "{}", run.stderr());
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds:.2} s");
    assert!((3.5..7.0).contains(&seconds), "2 MB at 1 MB/s and 4 MB at 2 MB/s took {seconds} s");
    Ok(())
}

#[test]
fn what_a_browser_does_keeps_to_the_limit() -> anyhow::Result<()> {
    const LIMIT: f64 = 2e6;
    let (programs, directory) = (Everybodys::new()?, public_directory()?);
    let program = static_program(directory.path())?;
    let bed = bed()?;
    let to = serve(&bed)?.to_string();
    // Thirty short ones, six at a time, and two long ones: 5.5 s altogether.
    let mut command = run(&programs, &bed, &["--download-limit", "2M"])?;
    command.arg(&program).arg(&to).args(["5x500x100000"; 6]).args(["1x500x4000000"; 2]);
    let mut run = Process::spawn(&mut command)?;
    let received = || bed.carried().map_or(0, |[_, to_client]| to_client.bytes);
    testbed::until("data flows", PATIENCE, || Ok((received() > 100_000).then_some(())))?;
    std::thread::sleep(Duration::from_millis(500));
    let (before, at) = (received(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    let share = (received() - before) as f64 / at.elapsed().as_secs_f64() / LIMIT;
    println!("{share:.3} of the limit");
    assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(7), "{}", run.stderr());
    assert!((0.8..1.15).contains(&share), "{share:.3} of the limit");
    Ok(())
}

/// A web server on the bed's server, with one file.
fn nginx(bed: &Testbed, directory: &FilePath, bytes: usize) -> anyhow::Result<(Process, SocketAddr)> {
    testbed::require_program("nginx")?;
    std::fs::write(directory.join("file"), vec![b'x'; bytes])?;
    let address = bed.server().socket_address(Family::V4, 8080);
    let (configuration, here) = (directory.join("nginx.conf"), directory.display());
    std::fs::write(
        &configuration,
        format!(
            "daemon off; master_process off; pid {here}/pid; error_log stderr; events {{ }}\n\
             http {{ access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             server {{ listen {address}; root {here}; }} }}\n"
        ),
    )?;
    let server = Process::spawn(bed.server().command("nginx").arg("-c").arg(&configuration))?;
    testbed::until("nginx listens", PATIENCE, || {
        Ok(bed.client().run(move || Ok(TcpStream::connect(address)?)).ok())
    })?;
    Ok((server, address))
}

#[test]
fn a_downloader_with_many_connections_is_held() -> anyhow::Result<()> {
    const FILES: usize = 6;
    testbed::require_program("curl")?;
    let (programs, directory) = (Everybodys::new()?, public_directory()?);
    let bed = bed()?;
    let (_server, address) = nginx(&bed, directory.path(), 1_500_000)?;
    let mut command = run(&programs, &bed, &["--download-limit", "3M"])?;
    command.args(["curl", "--silent", "--show-error", "--fail", "--parallel", "--parallel-immediate"]);
    command.args(["--write-out", "%{num_connects} %{size_download}\\n"]);
    for _ in 0..FILES {
        command.args(["--output", "/dev/null", &format!("http://{address}/file")]);
    }
    let start = Instant::now();
    let mut run = Process::spawn(&mut command)?;
    assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(0), "{}", run.stderr());
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(run.stdout(), "1 1500000\n".repeat(FILES), "each has a connection of its own");
    println!("{seconds:.2} s");
    assert!((2.6..4.5).contains(&seconds), "9 MB at 3 MB/s took {seconds} s");
    Ok(())
}

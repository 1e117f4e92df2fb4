//! The history in a file: `SQLite` with a write-ahead log, one writer.

mod read;

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, Statement, Transaction, params};

pub use self::read::Point;
use super::{
    By, Step,
    recorder::{Batch, Who},
};
use crate::stats::Traffic;

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Another process writes to it.
    #[error("another chadthrottle records to {0} already")]
    Busy(PathBuf),
    /// Nothing has been recorded yet.
    #[error("nothing has been recorded to {0} yet: the screen and `chadthrottle daemon` do, while they run")]
    Absent(PathBuf),
    /// The file cannot be opened.
    #[error("cannot open {path}: {source}")]
    Unopened {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it has another form than we know.
    #[error(
        "{0} was written by a newer chadthrottle: use that one, or another file (`path` under [history])"
    )]
    Newer(PathBuf),
    /// What is in it cannot be used.
    #[error("{path} cannot be used: {source}; where it is broken, move it away, and a new one is begun")]
    Broken {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// The history.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Whether it has the first form.
    is_first: bool,
    /// Of who writes, as long as it does.
    _lock: Option<File>,
}

/// An amount, and whose or when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// When its step began, where steps are told apart.
    pub start: Option<i64>,
    /// Whose it was; empty where there is no name.
    pub name: String,
    /// How much.
    pub traffic: Traffic,
}

/// The file is made no larger than this, or a little; then the oldest minutes go first.
const MOST_BYTES: i64 = 256 << 20;
/// Of the form. The first had no [`Step::FourWeeks`], and no sums of units and users.
const VERSION: i64 = 2;

const SCHEMA: &str = "
    CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
    CREATE TABLE usage (
        step INTEGER, start INTEGER, program INTEGER, unit INTEGER, user INTEGER,
        upload INTEGER NOT NULL, download INTEGER NOT NULL,
        PRIMARY KEY (step, start, program, unit, user)
    ) WITHOUT ROWID;
    CREATE TABLE interfaces (
        step INTEGER, start INTEGER, interface INTEGER,
        upload INTEGER NOT NULL, download INTEGER NOT NULL,
        PRIMARY KEY (step, start, interface)
    ) WITHOUT ROWID;
    CREATE TABLE rules (
        start INTEGER, rule INTEGER, upload INTEGER NOT NULL, download INTEGER NOT NULL,
        PRIMARY KEY (rule, start)
    ) WITHOUT ROWID;";

/// Sums of what is in `usage`: there are few units and users, and who asks for them need not wait for all programs.
const SECOND: &str = "
    CREATE TABLE units (
        step INTEGER, start INTEGER, unit INTEGER, upload INTEGER NOT NULL, download INTEGER NOT NULL,
        PRIMARY KEY (step, start, unit)
    ) WITHOUT ROWID;
    CREATE TABLE users (
        step INTEGER, start INTEGER, user INTEGER, upload INTEGER NOT NULL, download INTEGER NOT NULL,
        PRIMARY KEY (step, start, user)
    ) WITHOUT ROWID;
    INSERT INTO usage SELECT 2419200, start - start % 2419200 AS weeks, program, unit, user, sum(upload), sum(download)
        FROM usage WHERE step = 86400 GROUP BY weeks, program, unit, user;
    INSERT INTO interfaces SELECT 2419200, start - start % 2419200 AS weeks, interface, sum(upload), sum(download)
        FROM interfaces WHERE step = 86400 GROUP BY weeks, interface;
    INSERT INTO units SELECT step, start, unit, sum(upload), sum(download) FROM usage GROUP BY step, start, unit;
    INSERT INTO users SELECT step, start, user, sum(upload), sum(download) FROM usage GROUP BY step, start, user;
    PRAGMA user_version = 2;";

/// Quotas look back a month at most.
const RULES_KEPT: i64 = 32 * 86_400;

impl Store {
    /// Opens it to write, and makes it where it is not there.
    ///
    /// # Errors
    /// When somebody else writes, or it cannot be opened or used.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let unopened = |source| HistoryError::Unopened { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(unopened)?;
        }
        // Who uses what is nobody else's business. The log that SQLite puts beside it is as readable as this.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(unopened)?;
        // By a file of its own: SQLite locks the other one in its own way, and closing any descriptor of that ends its
        // locks (POSIX).
        drop(file);
        let lock = path.with_extension("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock).map_err(unopened)?;
        lock.try_lock().map_err(|_| HistoryError::Busy(path.to_owned()))?;
        let store = Self::with(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Some(lock))?;
        if store.version().map_err(|source| store.broken(source))? > VERSION {
            return Err(HistoryError::Newer(path.to_owned()));
        }
        store.make_ready().map_err(|source| store.broken(source))?;
        Ok(store)
    }

    /// Opens it to read.
    ///
    /// # Errors
    /// When it is not there, or cannot be opened or used.
    pub fn open_to_read(path: &Path) -> Result<Self, HistoryError> {
        match File::open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HistoryError::Absent(path.to_owned()));
            }
            Err(source) => return Err(HistoryError::Unopened { path: path.to_owned(), source }),
        }
        let store = Self::with(path, OpenFlags::SQLITE_OPEN_READ_WRITE, None)
            .or_else(|_| Self::with(path, OpenFlags::SQLITE_OPEN_READ_ONLY, None))?;
        match store.version().map_err(|source| store.broken(source))? {
            0 => Err(HistoryError::Absent(path.to_owned())),
            // Somebody may still record in the first form.
            1 => Ok(Self { is_first: true, ..store }),
            VERSION => Ok(store),
            _ => Err(HistoryError::Newer(path.to_owned())),
        }
    }

    /// One that is gone when this is, as that of a simulated host.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, HistoryError> {
        let path = PathBuf::from(":memory:");
        let broken = |source| HistoryError::Broken { path: path.clone(), source };
        let connection = Connection::open_in_memory().map_err(broken)?;
        let store = Self { connection, path: path.clone(), is_first: false, _lock: None };
        store.make_ready().map_err(broken)?;
        Ok(store)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When what was recorded last was, by the clock then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn newest(&self) -> Result<Option<i64>, HistoryError> {
        let newest = "SELECT max(start) FROM usage WHERE step = ?1";
        let read = self.connection.query_row(newest, [Step::Minute.seconds()], |row| row.get(0));
        read.map_err(|source| self.broken(source))
    }

    fn with(path: &Path, flags: OpenFlags, lock: Option<File>) -> Result<Self, HistoryError> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let broken = |source| HistoryError::Broken { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(path, flags).map_err(broken)?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(broken)?;
        Ok(Self { connection, path: path.to_owned(), is_first: false, _lock: lock })
    }

    fn broken(&self, source: rusqlite::Error) -> HistoryError {
        HistoryError::Broken { path: self.path.clone(), source }
    }

    fn version(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    /// The coarsest step that there is in it.
    const fn coarsest(&self) -> Step {
        if self.is_first { Step::Day } else { Step::FourWeeks }
    }

    fn make_ready(&self) -> rusqlite::Result<()> {
        if self.version()? == 0 {
            self.connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
        }
        // What is committed survives a kill; after a power cut the last of it may be missing, and nothing is broken.
        self.connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        self.connection.execute_batch("PRAGMA synchronous = NORMAL;")?;
        let first = match self.version()? {
            0 => SCHEMA,
            1 => "",
            _ => return Ok(()),
        };
        // Where it fails the connection ends, and with it what was not committed.
        self.connection.execute_batch(&format!("BEGIN IMMEDIATE;{first}{SECOND}COMMIT;"))
    }

    /// Adds amounts to every step, all or none of them.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has been.
    pub fn add(&mut self, batch: &Batch) -> Result<(), HistoryError> {
        let path = self.path.clone();
        self.try_add(batch).map_err(|source| HistoryError::Broken { path, source })
    }

    fn try_add(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        add_usage(&transaction, batch)?;
        add_to(&transaction, "units", &by(batch, |who| &who.unit))?;
        add_to(&transaction, "users", &by(batch, |who| &who.user))?;
        add_to(&transaction, "interfaces", &batch.interfaces)?;
        let mut add = transaction.prepare(
            "INSERT INTO rules VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE
             SET upload = upload + excluded.upload, download = download + excluded.download",
        )?;
        let mut names = Names::new(&transaction)?;
        for ((minute, rule), amount) in &batch.rules {
            let rule = names.id(rule)?;
            add.execute(params![minute, rule, number(amount.upload), number(amount.download)])?;
        }
        drop((add, names));
        transaction.commit()
    }

    /// Forgets what is too old, and the oldest minutes where the file is too large.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prune(&mut self, now: i64) -> Result<(), HistoryError> {
        let path = self.path.clone();
        self.try_prune(now, MOST_BYTES).map_err(|source| HistoryError::Broken { path, source })
    }

    fn try_prune(&mut self, now: i64, most_bytes: i64) -> rusqlite::Result<()> {
        for step in Step::ALL {
            self.forget(step, step.start(now) - step.kept())?;
        }
        self.connection.execute("DELETE FROM rules WHERE start < ?1", [now - RULES_KEPT])?;
        for step in Step::ALL {
            // A tenth of the time each time, so that it ends.
            for _ in 0..50 {
                if self.bytes()? <= most_bytes {
                    break;
                }
                let range = "SELECT min(start), max(start) FROM usage WHERE step = ?1";
                let range: (Option<i64>, Option<i64>) =
                    self.connection
                        .query_row(range, [step.seconds()], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let (Some(first), Some(last)) = range else { break };
                self.forget(step, first + (last - first) / 10 + 1)?;
            }
        }
        // A name may be in use again.
        self.connection.execute_batch(
            "DELETE FROM names WHERE id NOT IN (SELECT program FROM usage UNION SELECT unit FROM units
                 UNION SELECT user FROM users UNION SELECT interface FROM interfaces UNION SELECT rule FROM rules);
             PRAGMA incremental_vacuum;",
        )
    }

    fn forget(&self, step: Step, before: i64) -> rusqlite::Result<()> {
        for table in ["usage", "units", "users", "interfaces"] {
            let forget = format!("DELETE FROM {table} WHERE step = ?1 AND start < ?2");
            self.connection.execute(&forget, params![step.seconds(), before])?;
        }
        Ok(())
    }

    /// What is in use of the file.
    fn bytes(&self) -> rusqlite::Result<i64> {
        let number =
            |name: &str| self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
    }
}

fn add_usage(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<()> {
    let mut names = Names::new(transaction)?;
    let mut add = transaction.prepare(
        "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE
         SET upload = upload + excluded.upload, download = download + excluded.download",
    )?;
    for ((minute, who), amount) in &batch.usage {
        let (program, unit, user) = (names.id(&who.program)?, names.id(&who.unit)?, names.id(&who.user)?);
        let (upload, download) = (number(amount.upload), number(amount.download));
        for step in Step::ALL {
            add.execute(params![step.seconds(), step.start(*minute), program, unit, user, upload, download])?;
        }
    }
    Ok(())
}

/// Amounts of a table that has one name a row.
type Amounts = BTreeMap<(i64, String), Traffic>;

/// The usage added up by something of whoever used it.
fn by(batch: &Batch, pick: fn(&Who) -> &String) -> Amounts {
    let mut sums = Amounts::new();
    for ((minute, who), amount) in &batch.usage {
        let sum = sums.entry((*minute, pick(who).clone())).or_default();
        *sum = sum.plus(*amount);
    }
    sums
}

fn add_to(transaction: &Transaction<'_>, table: &str, amounts: &Amounts) -> rusqlite::Result<()> {
    let mut names = Names::new(transaction)?;
    let mut add = transaction.prepare(&format!(
        "INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE
         SET upload = upload + excluded.upload, download = download + excluded.download"
    ))?;
    for ((minute, name), amount) in amounts {
        let name = names.id(name)?;
        let (upload, download) = (number(amount.upload), number(amount.download));
        for step in Step::ALL {
            add.execute(params![step.seconds(), step.start(*minute), name, upload, download])?;
        }
    }
    Ok(())
}

/// Names have numbers.
struct Names<'a> {
    add: Statement<'a>,
    find: Statement<'a>,
}

impl<'a> Names<'a> {
    fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        let add = transaction.prepare("INSERT OR IGNORE INTO names (text) VALUES (?1)")?;
        Ok(Self { add, find: transaction.prepare("SELECT id FROM names WHERE text = ?1")? })
    }

    fn id(&mut self, text: &str) -> rusqlite::Result<i64> {
        self.add.execute([text])?;
        self.find.query_row([text], |row| row.get(0))
    }
}

/// `SQLite`'s numbers have a sign.
fn number(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn bytes(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests;

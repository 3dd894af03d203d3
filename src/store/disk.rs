//! A store in a file, by redb: a B-tree that copies on write.
//!
//! A transaction is on the disk when it returns (fsync), or it never was: a process that is killed in the
//! middle leaves the file as the last transaction left it, and the next start finds that state. After a
//! failed write the library refuses to go on with what it has in memory, rightly; so the file is closed and
//! opened anew before the next transaction, which finds out by itself whether the disk does again.

use std::fmt;
use std::path::{Path, PathBuf};

use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable, TableDefinition,
};

use super::ask::{Ask, Fault, Limits, Outcome};
use super::rows;
use super::table::{self, Store, Table};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// Changes with the layout of rows.
const FORMAT: u8 = 1;

/// Keeps everything in one file.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    limits: Limits,
    /// Bytes of the file that are held in memory.
    cache: usize,
    /// `None` after a fault, until the file could be opened again.
    open: Option<Database>,
}

impl Disk {
    /// Opens the file, or makes it. `cache` bytes of it are held in memory at most.
    ///
    /// # Errors
    /// When it cannot be opened, read or written, when another process has it open, and when it is not ours.
    pub fn open(path: &Path, limits: Limits, cache: usize) -> Result<Self, Fault> {
        let mut disk = Self { path: path.to_owned(), limits, cache, open: None };
        disk.open = Some(disk.reopen()?);
        Ok(disk)
    }

    fn fault(&self, what: &str, why: impl fmt::Display) -> Fault {
        Fault(format!("{}: {what}: {why}", self.path.display()))
    }

    fn reopen(&self) -> Result<Database, Fault> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache);
        let database = builder.create(&self.path).map_err(|error| self.fault("opening", error))?;
        let write = database.begin_write().map_err(|error| self.fault("opening", error))?;
        let mut rows = write.open_table(ROWS).map_err(|error| self.fault("opening", error))?;
        let before = rows.get(rows::FORMAT_KEY).map_err(|error| self.fault("reading", error))?;
        match before.map(|value| value.value().to_vec()) {
            None => {
                let format: &[u8] = &[FORMAT];
                rows.insert(rows::FORMAT_KEY, format)
                    .map_err(|error| self.fault("writing", error))?;
                drop(rows);
                write.commit().map_err(|error| self.fault("writing", error))?;
            }
            Some(format) if format == [FORMAT] => {
                drop(rows);
                write.abort().map_err(|error| self.fault("reading", error))?;
            }
            Some(other) => {
                let why = format!("expected a store of format {FORMAT}, found {other:?}");
                return Err(self.fault("opening", why));
            }
        }
        Ok(database)
    }

    fn transact(&self, database: &Database, asks: &[Ask], now: u64) -> Result<Vec<Outcome>, Fault> {
        if asks.iter().all(table::only_reads) {
            let read = database.begin_read().map_err(|error| self.fault("reading", error))?;
            let rows = read.open_table(ROWS).map_err(|error| self.fault("reading", error))?;
            let mut rows = Rows { disk: self, rows: Access::Read(rows) };
            return asks
                .iter()
                .map(|ask| table::answer(&mut rows, ask, &self.limits, now))
                .collect();
        }
        let write = database.begin_write().map_err(|error| self.fault("writing", error))?;
        let outcomes = {
            let rows = write.open_table(ROWS).map_err(|error| self.fault("writing", error))?;
            let mut rows = Rows { disk: self, rows: Access::Write(rows) };
            asks.iter()
                .map(|ask| table::answer(&mut rows, ask, &self.limits, now))
                .collect::<Result<_, _>>()?
        };
        write.commit().map_err(|error| self.fault("writing", error))?;
        Ok(outcomes)
    }
}

impl Store for Disk {
    fn commit(&mut self, asks: &[Ask], now: u64) -> Result<Vec<Outcome>, Fault> {
        let database = match self.open.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let outcomes = self.transact(&database, asks, now)?;
        self.open = Some(database);
        Ok(outcomes)
    }
}

enum Access<'t> {
    Read(ReadOnlyTable<&'static [u8], &'static [u8]>),
    Write(redb::Table<'t, &'static [u8], &'static [u8]>),
}

/// The rows of a transaction.
struct Rows<'d, 't> {
    disk: &'d Disk,
    rows: Access<'t>,
}

impl Rows<'_, '_> {
    fn visit(
        &self,
        rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
        (from, below): (&[u8], &[u8]),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Fault> {
        let failed = |error| self.disk.fault("reading", error);
        for row in rows.range::<&[u8]>(from..below).map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            if !each(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn only_reads(&self) -> Fault {
        self.disk.fault("writing", "in a transaction that only reads")
    }
}

impl Table for Rows<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let value = match &self.rows {
            Access::Read(rows) => rows.get(key),
            Access::Write(rows) => rows.get(key),
        };
        let value = value.map_err(|error| self.disk.fault("reading", error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let Access::Write(rows) = &mut self.rows else { return Err(self.only_reads()) };
        rows.insert(key, value).map(|_| ()).map_err(|error| self.disk.fault("writing", error))
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Fault> {
        let Access::Write(rows) = &mut self.rows else { return Err(self.only_reads()) };
        rows.remove(key).map(|_| ()).map_err(|error| self.disk.fault("writing", error))
    }

    fn scan(
        &self,
        from: &[u8],
        below: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Fault> {
        if from >= below {
            return Ok(());
        }
        match &self.rows {
            Access::Read(rows) => self.visit(rows, (from, below), each),
            Access::Write(rows) => self.visit(rows, (from, below), each),
        }
    }

    /// The disk says itself when it is full.
    fn has_space(&self, _: u64) -> bool {
        true
    }
}

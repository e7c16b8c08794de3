//! A disk over another one that is only read: writes are kept in memory.
//!
//! So a caller can run recovery, or any other code that writes, on a directory without changing it.
//! Memory use is the written bytes, in pages; space that is only allocated takes none.

use crate::disk::{Disk, File, Pace};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A disk that reads from another one, and never writes to it. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    beneath: Arc<dyn Disk>,
    /// The files that were opened, made or renamed; `None` for removed ones.
    changed: Arc<Mutex<BTreeMap<PathBuf, Option<Arc<Layered>>>>>,
}

impl Overlay {
    /// An overlay over `beneath`, which must not change meanwhile.
    pub(crate) fn over(beneath: Arc<dyn Disk>) -> Self {
        Self { beneath, changed: Arc::default() }
    }

    fn changed(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Option<Arc<Layered>>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Layered>> {
        let mut changed = self.changed();
        match changed.get(path) {
            Some(Some(file)) => Ok(Arc::clone(file)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let file = Arc::new(Layered::over(self.beneath.open_to_read(path)?)?);
                changed.insert(path.to_owned(), Some(Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

impl Disk for Overlay {
    /// Does nothing: the directory exists, or there are no files to overlay.
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names: BTreeSet<String> = self.beneath.list(dir)?.into_iter().collect();
        for (path, file) in self.changed().iter().filter(|(path, _)| path.parent() == Some(dir)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match file {
                Some(_) => {
                    names.insert(name.to_owned());
                }
                None => {
                    names.remove(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        match self.file(path) {
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = Arc::new(Layered::default());
        self.changed().insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(Box::new(OverlayFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OverlayFile(self.file(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        let mut changed = self.changed();
        changed.insert(from.to_owned(), None);
        changed.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.changed().insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The lock of the disk beneath, if the file exists: without one, no process has locked it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        match self.beneath.lock_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(())),
            outcome => outcome,
        }
    }

    fn in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        work();
        Ok(())
    }
}

#[derive(Debug)]
struct OverlayFile(Arc<Layered>);

/// A file beneath, if there is one, and the pages written over it.
#[derive(Debug, Default)]
struct Layered {
    beneath: Option<Box<dyn File>>,
    layer: Mutex<Layer>,
}

#[derive(Default)]
struct Layer {
    bytes: u64,
    /// The number of bytes of the file beneath that are visible.
    kept: u64,
    pages: BTreeMap<u64, Box<Page>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("bytes", &self.bytes)
            .field("kept", &self.kept)
            .field("pages", &self.pages.len())
            .finish()
    }
}

type Page = [u8; PAGE_BYTES as usize];
const PAGE_BYTES: u64 = 4096;

impl Layered {
    fn over(beneath: Box<dyn File>) -> io::Result<Self> {
        let bytes = beneath.length()?;
        let layer = Layer { bytes, kept: bytes, pages: BTreeMap::new() };
        Ok(Self { beneath: Some(beneath), layer: Mutex::new(layer) })
    }

    fn layer(&self) -> MutexGuard<'_, Layer> {
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads bytes of the file beneath, or zeros.
    fn read_beneath(&self, layer: &Layer, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let shown = layer.kept.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (shown, rest) = buffer.split_at_mut(shown);
        rest.fill(0);
        if let Some(beneath) = self.beneath.as_ref().filter(|_| !shown.is_empty()) {
            let count = beneath.read_at(shown, offset)?;
            shown[count..].fill(0);
        }
        Ok(())
    }
}

impl File for OverlayFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let layer = self.0.layer();
        let count = layer.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (buffer, end) = (&mut buffer[..count], offset.saturating_add(count as u64));
        self.0.read_beneath(&layer, buffer, offset)?;
        for (number, page) in layer.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let begins = number * PAGE_BYTES;
            let (from, to) = (begins.max(offset), (begins + PAGE_BYTES).min(end));
            let here = &page[(from - begins) as usize..(to - begins) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(here);
        }
        Ok(count)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let (mut layer, mut at) = (self.0.layer(), offset);
        for mut rest in slices.iter().map(|slice| &slice[..]) {
            while !rest.is_empty() {
                let (number, within) = (at / PAGE_BYTES, (at % PAGE_BYTES) as usize);
                if !layer.pages.contains_key(&number) {
                    let mut page = Box::new([0; PAGE_BYTES as usize]);
                    self.0.read_beneath(&layer, &mut page[..], number * PAGE_BYTES)?;
                    layer.pages.insert(number, page);
                }
                let (some, more) = rest.split_at(rest.len().min(PAGE_BYTES as usize - within));
                if let Some(page) = layer.pages.get_mut(&number) {
                    page[within..within + some.len()].copy_from_slice(some);
                }
                at += some.len() as u64;
                rest = more;
            }
        }
        if at > offset {
            layer.bytes = layer.bytes.max(at);
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64, pace: Pace<'_>) -> io::Result<()> {
        if matches!(pace, Pace::Gently { .. }) {
            return Ok(());
        }
        *self.0.layer() = Layer { bytes, kept: 0, pages: BTreeMap::new() };
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let layer = &mut *self.0.layer();
        (layer.bytes, layer.kept) = (layer.bytes.min(bytes), layer.kept.min(bytes));
        drop(layer.pages.split_off(&bytes.div_ceil(PAGE_BYTES)));
        if let Some(page) = layer.pages.get_mut(&(bytes / PAGE_BYTES)) {
            page[(bytes % PAGE_BYTES) as usize..].fill(0);
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.layer().bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quorate_storage_testing::SimulatedDisk;

    #[derive(Clone, Debug)]
    enum Step {
        Write { at: u64, bytes: Vec<u8> },
        Allocate(u64),
        Truncate(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..20_000u64, prop::collection::vec(1..=u8::MAX, 0..9000))
                .prop_map(|(at, bytes)| Step::Write { at, bytes }),
            (0..20_000u64).prop_map(Step::Allocate),
            (0..20_000u64).prop_map(Step::Truncate),
        ];
        prop::collection::vec(step, 0..8)
    }

    proptest! {
        #[test]
        fn a_file_over_another_is_what_a_file_of_its_own_would_be_and_the_one_beneath_stays(
            beneath in prop::collection::vec(any::<u8>(), 0..20_000),
            steps in steps(),
            reads in prop::collection::vec((0..25_000u64, 0..9000usize), 1..8),
        ) {
            let (disk, twin, path) = (SimulatedDisk::new(), SimulatedDisk::new(), Path::new("dir/file"));
            disk.put(path, beneath.clone());
            twin.put(path, beneath.clone());
            let overlay = Overlay::over(Arc::new(disk.clone()));
            let [file, twin] = [&overlay as &dyn Disk, &twin].map(|disk| disk.open(path).expect("it is there"));
            for step in &steps {
                for file in [&file, &twin] {
                    match step {
                        Step::Write { at, bytes } => file.write_at(&mut [IoSlice::new(bytes)], *at),
                        Step::Allocate(bytes) => file.allocate(*bytes, Pace::AtOnce),
                        Step::Truncate(bytes) => file.truncate(*bytes),
                    }.expect("it works");
                }
            }
            prop_assert_eq!(file.length().expect("a length"), twin.length().expect("a length"));
            for (at, count) in reads {
                let [one, other] = [&file, &twin].map(|file| {
                    let mut buffer = vec![0; count];
                    let count = file.read_at(&mut buffer, at).expect("it can be read");
                    buffer.truncate(count);
                    buffer
                });
                prop_assert_eq!(one, other);
            }
            prop_assert_eq!(disk.contents(path), Some(beneath));
        }
    }

    #[test]
    fn names_change_above_alone() {
        let disk = SimulatedDisk::new();
        let path = |name: &str| Path::new("dir").join(name);
        for name in ["a", "b", "c"] {
            disk.put(&path(name), name.into());
        }
        let before = disk.paths();
        let overlay = Overlay::over(Arc::new(disk.clone()));
        overlay.rename(&path("a"), &path("b")).expect("renamed");
        overlay.remove(&path("c")).expect("removed");
        overlay.create(&path("d")).expect("made");
        let kind = |outcome: io::Result<Box<dyn File>>| outcome.map(drop).map_err(|error| error.kind());
        assert_eq!(kind(overlay.create(&path("d"))), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(kind(overlay.create(&path("b"))), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(kind(overlay.open(&path("c"))), Err(io::ErrorKind::NotFound));
        assert_eq!(overlay.list(Path::new("dir")).expect("a list"), ["b", "d"]);
        let mut byte = [0];
        overlay.open(&path("b")).expect("it is there").read_at(&mut byte, 0).expect("read");
        assert_eq!(&byte, b"a");
        assert_eq!(disk.paths(), before);
        assert_eq!(disk.contents(&path("b")), Some(b"b".to_vec()));
    }

    #[test]
    fn a_lock_beneath_counts() {
        let disk = SimulatedDisk::new();
        let held = disk.lock(Path::new("dir/lock")).expect("locked");
        let overlay = Overlay::over(Arc::new(disk.clone()));
        let refused = overlay.lock(Path::new("dir/lock")).map(drop).expect_err("it is locked");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        let held = overlay.lock(Path::new("dir/lock")).expect("locked");
        assert!(disk.lock(Path::new("dir/lock")).is_err());
        drop(held);
    }
}

//! Handles: numbers in place of addresses, so that a wrong one is noticed and not followed.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, TryLockError, TryLockResult};
use std::time::Duration;

use crate::border::Failure;
use crate::codes::{SMALTI_BUSY, SMALTI_HANDLE, SMALTI_NULL};

/// Everything of one kind that is open. Numbers are not used again.
pub(crate) struct Table<T> {
    /// What C calls the kind.
    name: &'static str,
    /// Told apart from other tables' by its remainder.
    remainder: usize,
    open: RwLock<Open<T>>,
}

struct Open<T> {
    last: usize,
    by_number: BTreeMap<usize, Arc<T>>,
}

/// How many tables there may be.
const KINDS: usize = 4;

/// How often a thread looks whether a table is free: at first at once, then every millisecond. Tables are held for
/// microseconds.
const LOOKS: u32 = 5_000;

/// A lock that is waited for within bounds: if the process was forked while another thread held it, nobody gives it back.
fn locked<G>(lock: impl Fn() -> TryLockResult<G>) -> Result<G, Failure> {
    for look in 0..LOOKS {
        match lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(guard)) => return Ok(guard.into_inner()),
            Err(TryLockError::WouldBlock) if look < 1000 => std::thread::yield_now(),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    let message = "the process was forked while another thread opened or closed something: open it before, or after, alone";
    Err(Failure { code: SMALTI_BUSY, message: message.into() })
}

impl<T> Table<T> {
    pub(crate) const fn new(name: &'static str, remainder: usize) -> Table<T> {
        let open = Open { last: 0, by_number: BTreeMap::new() };
        Table { name, remainder, open: RwLock::new(open) }
    }

    /// Takes something in; its handle, never null.
    pub(crate) fn insert<H>(&self, value: T) -> Result<*mut H, Failure> {
        let mut open = locked(|| self.open.try_write())?;
        loop {
            open.last = open.last.wrapping_add(1);
            let number = open.last.wrapping_mul(KINDS).wrapping_add(self.remainder);
            // Where numbers are short they may come round.
            if number >= KINDS && !open.by_number.contains_key(&number) {
                open.by_number.insert(number, Arc::new(value));
                return Ok(std::ptr::without_provenance_mut(number));
            }
        }
    }

    /// What a handle stands for, kept alive by the answer even if it is closed meanwhile.
    pub(crate) fn get<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let open = locked(|| self.open.try_read())?;
        open.by_number.get(&handle.addr()).cloned().ok_or_else(|| self.wrong(handle))
    }

    /// Forgets a handle.
    pub(crate) fn remove<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let mut open = locked(|| self.open.try_write())?;
        open.by_number.remove(&handle.addr()).ok_or_else(|| self.wrong(handle))
    }

    fn wrong<H>(&self, handle: *const H) -> Failure {
        let name = self.name;
        if handle.is_null() {
            return Failure { code: SMALTI_NULL, message: format!("the {name} is null") };
        }
        let message = format!("the {name} is closed, or of another kind, or never was one");
        Failure { code: SMALTI_HANDLE, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_never_given_back_is_an_error() {
        let names = Table::new("name", 0);
        let name: *mut () = names.insert("a").unwrap();
        let held = names.open.write().unwrap();
        assert_eq!(names.get(name).unwrap_err().code, SMALTI_BUSY);
        drop(held);
        assert!(names.get(name).is_ok());
    }

    #[test]
    fn a_handle_is_good_until_it_is_closed_and_for_its_kind_alone() {
        let (names, ages) = (Table::new("name", 0), Table::new("age", 1));
        let name: *mut () = names.insert("a").unwrap();
        let age: *mut () = ages.insert(3).unwrap();
        assert_eq!((*names.get(name).unwrap(), *ages.get(age).unwrap()), ("a", 3));
        assert!(names.get(age).is_err() && ages.get(name).is_err());
        assert!(names.get(std::ptr::null::<()>()).is_err());
        names.remove(name).unwrap();
        assert!(names.get(name).is_err() && names.remove(name).is_err());
        assert_ne!(name, names.insert("b").unwrap());
    }
}

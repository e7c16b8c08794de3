//! Three functions of the C library, defined here in front of its own: this crate is part of the
//! executable, and a dynamic linker finds the symbols of an executable first. Each asks whether the
//! calling thread is in a world, and otherwise does what the library does.
//!
//! **Safety.** Each has the signature of the function that it replaces, and demands of its caller
//! just what that one demands: that a pointer for a result points to memory of the stated size. It
//! may be called on any thread at any time, so it allocates nothing, takes no lock, and the
//! thread-local that it reads has no destructor and no lazy start. Outside of a world the clock and
//! the entropy come from the system call, which the library's functions are wrappers of, and threads
//! from the library's function, which `dlsym` finds as the next definition of the name.
//!
//! A system call of the service's own, and an instruction that reads a counter, escape this.

use super::here;
use libc::{EAGAIN, RTLD_NEXT, SYS_clock_gettime, SYS_getrandom};
use std::{
    ffi::{c_int, c_uint, c_void},
    hint::black_box,
    mem, slice,
};

type Main = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Main, *mut c_void) -> c_int;

/// Has the linker keep these symbols.
pub(super) fn link() {
    black_box((clock_gettime as *const (), getrandom as *const (), pthread_create as *const ()));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> c_int {
    let Some(ns) = here::clock_ns() else {
        // SAFETY: the caller's pointer is passed on to the system call, which checks it.
        return unsafe { libc::syscall(SYS_clock_gettime, clock, to) } as c_int;
    };
    let (seconds, rest) = ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64);
    // SAFETY: the caller passes a pointer to a timespec that may be written.
    unsafe { to.write(libc::timespec { tv_sec: seconds, tv_nsec: rest }) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(to: *mut c_void, length: usize, flags: c_uint) -> isize {
    // SAFETY: the caller passes a pointer to this many bytes that may be written; zeros make them a
    // slice of initialised ones.
    let is_filled = length > 0
        && here::is_entered()
        && here::fill(unsafe {
            to.write_bytes(0, length);
            slice::from_raw_parts_mut(to.cast::<u8>(), length)
        });
    if is_filled {
        return length as isize;
    }
    // SAFETY: the caller's buffer is passed on to the system call, which checks it.
    unsafe { libc::syscall(SYS_getrandom, to, length, flags) as isize }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    main: Main,
    argument: *mut c_void,
) -> c_int {
    if here::refuses_thread() {
        return EAGAIN;
    }
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(RTLD_NEXT, c"pthread_create".as_ptr()) };
    if found.is_null() {
        return EAGAIN;
    }
    // SAFETY: the C library's function of this name has this signature; the caller's arguments are
    // passed on as they are.
    unsafe { mem::transmute::<*mut c_void, Create>(found)(thread, attributes, main, argument) }
}

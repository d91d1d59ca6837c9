//! The title of a process, as `ps` shows it.
//!
//! The kernel shows the memory in which it has put the arguments, and the memory after it when the last byte is not NUL (proc(5),
//! cmdline). The strings of the environment follow there. So arguments and environment are copied elsewhere, once, and the whole
//! area holds the title from then on; `std::env::args` and the environment keep their values.

use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

use nix::sys::prctl;

/// Longest name that the kernel keeps for a process (comm), in bytes.
const NAME_MAX: usize = 15;

/// Fields of /proc/self/stat after the name in parentheses, counted from 0 for the state.
const START_STACK: usize = 25;
const ARG_START: usize = 45;
const ARG_END: usize = 46;
const ENV_START: usize = 47;
const ENV_END: usize = 48;

unsafe extern "C" {
    /// The environment of the C library: pointers to strings, the last one null.
    static environ: *const *mut c_char;
}

/// The memory that shows the title. One for a process; a forked child uses its own copy of it.
#[derive(Debug)]
pub struct Title {
    /// Start of `len` writable bytes that nothing points to any more and that live as long as the process.
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value alone, whichever thread has it.
unsafe impl Send for Title {}

/// Addresses of the data that the kernel has put on the stack.
#[derive(Clone, Copy, Debug)]
struct Area {
    /// Where the number of arguments is, followed by the pointers to them and a null pointer.
    stack: usize,
    args: (usize, usize),
    env: (usize, usize),
}

impl Title {
    /// Takes the area over: for a process with one thread, once. `None` where the kernel does not show its place, or shows
    /// something that does not match the memory.
    pub fn take() -> Option<Self> {
        let area = area(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        let arguments = arguments(area)?;
        // SAFETY: `arguments` has found the array to be the program's, each pointer to a string of the area.
        unsafe { move_away(arguments, area.args) };
        // SAFETY: the C library keeps `environ` valid; no other thread changes it meanwhile, as `take` demands.
        unsafe { move_away(environ.cast_mut(), area.env) };
        let end = if area.env.0 == area.args.1 { area.env.1 } else { area.args.1 };
        Some(Self { start: NonNull::new(area.args.0 as *mut u8)?, len: end - area.args.0 })
    }

    /// Shows this title; a longer one is cut. Also gives the process this name, as far as the kernel has room.
    pub fn set(&mut self, text: &str) {
        let text = text.as_bytes();
        // The last byte stays NUL, so that a reader of the area as a string finds an end.
        let used = text.len().min(self.len - 1);
        // SAFETY: the area is writable, of this length, belongs to this value alone, and the text is elsewhere.
        unsafe {
            self.start.as_ptr().copy_from_nonoverlapping(text.as_ptr(), used);
            self.start.as_ptr().add(used).write_bytes(0, self.len - used);
        }
        let name: Vec<u8> = text.iter().copied().take(NAME_MAX).take_while(|byte| *byte != 0).collect();
        if let Ok(name) = CString::new(name) {
            // This fails for no name.
            let _ = prctl::set_name(&name);
        }
    }
}

fn area(stat: &str) -> Option<Area> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<usize> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    let field = |index: usize| fields.get(index).copied().filter(|address| *address != 0);
    let area = Area {
        stack: field(START_STACK)?,
        args: (field(ARG_START)?, field(ARG_END)?),
        env: (field(ENV_START)?, field(ENV_END)?),
    };
    (area.stack < area.args.0 && area.args.0 < area.args.1 && area.env.0 <= area.env.1).then_some(area)
}

/// The array of pointers to the arguments, if it is where it should be: the count, then so many pointers into the area, then
/// null.
fn arguments(area: Area) -> Option<*mut *mut c_char> {
    let room = (area.args.0 - area.stack) / size_of::<usize>();
    if !area.stack.is_multiple_of(size_of::<usize>()) {
        return None;
    }
    let words = area.stack as *const usize;
    // SAFETY: the kernel reports that the stack starts here and that the arguments are above it; between the two is the stack's
    // first page, mapped and readable, and `room` words fit in.
    let word = |index: usize| (index < room).then(|| unsafe { words.add(index).read() });
    let count = word(0)?;
    let pointers = (1..=count).map(word).collect::<Option<Vec<usize>>>()?;
    let inside = |pointer: &usize| (area.args.0..area.args.1).contains(pointer);
    let right = pointers.first() == Some(&area.args.0) && pointers.iter().all(inside) && word(count + 1) == Some(0);
    right.then(|| (area.stack + size_of::<usize>()) as *mut *mut c_char)
}

/// Replaces every pointer into `area` by one to a copy that lives for ever.
///
/// # Safety
/// `strings` is an array of pointers to C strings that ends with null, and nobody else uses it meanwhile.
unsafe fn move_away(strings: *mut *mut c_char, area: (usize, usize)) {
    let mut at = strings;
    if at.is_null() {
        return;
    }
    loop {
        // SAFETY: the null that ends the array has not been passed.
        let string = unsafe { at.read() };
        if string.is_null() {
            return;
        }
        if (area.0..area.1).contains(&(string as usize)) {
            // SAFETY: a C string, as the caller says; the copy is never freed, because nobody knows for how long it is used.
            let copy = unsafe { CStr::from_ptr(string) }.to_owned().into_raw();
            // SAFETY: an element of the array, which is writable memory of this process.
            unsafe { at.write(copy) };
        }
        // SAFETY: the element was not the last.
        at = unsafe { at.add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{Exit, alone_in_test, fork_in_test, wait_in_test};

    #[test]
    fn the_title_is_shown_and_arguments_and_environment_stay() {
        let alone = alone_in_test();
        let child = fork_in_test(&alone, |_| {
            let before: Vec<_> = std::env::args_os().collect();
            let variables: Vec<_> = std::env::vars_os().collect();
            let Some(mut title) = Title::take() else { return 1 };
            for text in ["short", &"a long title ".repeat(20)] {
                title.set(text);
                let shown = std::fs::read_to_string("/proc/self/cmdline").unwrap_or_default();
                let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
                let wanted = &text[..text.len().min(title.len - 1)];
                if shown.trim_end_matches('\0') != wanted || name.trim_end_matches('\n') != &text[..text.len().min(NAME_MAX)] {
                    return 2;
                }
            }
            let same = std::env::args_os().eq(before) && std::env::vars_os().eq(variables);
            if same { 0 } else { 3 }
        });
        assert_eq!(wait_in_test(child), Exit::Code(0));
    }

    #[test]
    fn a_kernel_that_shows_no_addresses_gives_no_title() {
        assert!(area("1 (a) b) S 1 2").is_none());
        assert!(area(&format!("1 (x) S {}", "0 ".repeat(60))).is_none());
    }
}

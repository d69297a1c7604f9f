//! Connection URLs, beside libpq itself (libpq.so.5, whatever version is there).

#![no_main]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pgtend::pg::{Settings, url};

const SECRET: &str = "hunter2";

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for text in [text.to_owned(), format!("postgres://{text}"), format!("postgres://u:{SECRET}@h/{text}")] {
        check(&text);
    }
});

fn check(text: &str) {
    let _ = (Settings::check_url(text), Settings::has_password(text), Settings::names_a_database(text));
    let ours = match url::parse(text) {
        Ok(ours) => ours,
        Err(error) => {
            assert!(!error.contains(SECRET), "{text}: {error}");
            return;
        }
    };
    let Ok(c_text) = CString::new(text) else { panic!("{text:?} has a zero byte and is taken") };
    let Some(libpq) = libpq() else { return };
    let theirs = match libpq.parse(&c_text) {
        Ok(theirs) => theirs,
        Err(error) => {
            // What applications add to their URL; `=` in a value, as many write it; an IPv6 zone that is not encoded.
            let is_known = error.contains("invalid URI query parameter")
                || error.contains("key/value separator")
                || (error.contains("percent-encoded") && text.contains('['));
            assert!(is_known, "libpq does not take {text}: {error}");
            return;
        }
    };
    if text.contains('[') && text.contains('%') {
        return;
    }
    let ours: BTreeMap<String, String> = ours.into_iter().filter(says_something).collect();
    let theirs: BTreeMap<String, String> = theirs.into_iter().filter(says_something).collect();
    assert_eq!(ours, theirs, "{text}");
}

/// `,` is two hosts, or ports, of which nothing is said.
fn says_something((_, value): &(String, String)) -> bool {
    !value.chars().all(|letter| letter == ',')
}

/// libpq-fe.h
#[repr(C)]
struct Parameter {
    keyword: *const c_char,
    envvar: *const c_char,
    compiled: *const c_char,
    val: *const c_char,
    label: *const c_char,
    dispchar: *const c_char,
    dispsize: c_int,
}

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

struct Libpq {
    conninfo_parse: unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> *mut Parameter,
    conninfo_free: unsafe extern "C" fn(*mut Parameter),
    freemem: unsafe extern "C" fn(*mut c_void),
}

/// None where there is none: then URLs are only read, and not compared.
fn libpq() -> Option<&'static Libpq> {
    static LIBPQ: OnceLock<Option<Libpq>> = OnceLock::new();
    let load = || {
        const NOW: c_int = 2;
        // SAFETY: the names end with a zero, and the functions have these types in every libpq 5.
        unsafe {
            let library = dlopen(c"libpq.so.5".as_ptr(), NOW);
            if library.is_null() {
                eprintln!("there is no libpq.so.5: nothing is compared");
                return None;
            }
            Some(Libpq {
                conninfo_parse: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> *mut Parameter,
                >(dlsym(library, c"PQconninfoParse".as_ptr())),
                conninfo_free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Parameter)>(dlsym(
                    library,
                    c"PQconninfoFree".as_ptr(),
                )),
                freemem: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(dlsym(
                    library,
                    c"PQfreemem".as_ptr(),
                )),
            })
        }
    };
    LIBPQ.get_or_init(load).as_ref()
}

impl Libpq {
    fn parse(&self, text: &CStr) -> Result<Vec<(String, String)>, String> {
        let lossy = |text: *const c_char| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        let mut error = std::ptr::null_mut();
        // SAFETY: as libpq's manual has it: an array that ends with a null keyword, or null and an error, both freed here.
        unsafe {
            let first = (self.conninfo_parse)(text.as_ptr(), &raw mut error);
            if first.is_null() {
                let said = if error.is_null() { String::new() } else { lossy(error) };
                (self.freemem)(error.cast());
                return Err(said);
            }
            let mut found = Vec::new();
            let mut at = first;
            while !(*at).keyword.is_null() {
                if !(*at).val.is_null() {
                    found.push((lossy((*at).keyword), lossy((*at).val)));
                }
                at = at.add(1);
            }
            (self.conninfo_free)(first);
            Ok(found)
        }
    }
}

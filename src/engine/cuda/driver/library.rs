//! Libraries that are loaded at run time, and tables of their functions.

use std::ffi::{CStr, CString, c_void};

use crate::engine::cuda::CudaError;

/// An object of a library.
pub(super) type Handle = *mut c_void;

/// A library's functions, each `extern "C"` with a status as its result.
macro_rules! library {
    ($(#[$doc:meta])* $name:ident { $($field:ident = $symbol:literal ($($arg:ty),*);)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        struct $name { $($field: unsafe extern "C" fn($($arg),*) -> c_int,)* }

        impl $name {
            /// The functions of a loaded library.
            fn new(library: &Library) -> Result<Self, crate::engine::cuda::CudaError> {
                Ok(Self { $($field: {
                    let address = library.symbol($symbol)?;
                    // SAFETY: the symbol is that of CUDA's documented interface, which has these types since
                    // 11.4; a library of this name with another interface is not CUDA's.
                    unsafe {
                        std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) -> c_int>(address)
                    }
                },)* })
            }
        }
    };
}

pub(super) use library;

/// A loaded library. It is never unloaded: CUDA's have threads of their own.
pub(super) struct Library {
    handle: Handle,
    name: String,
}

impl Library {
    /// The first that can be loaded; else the names, and what the loader says.
    ///
    /// A program with a libc of its own loads none: the library would bring another one.
    pub(super) fn open(names: &[&str]) -> Result<Self, (String, String)> {
        if cfg!(target_feature = "crt-static") {
            return Err((
                names.join(", "),
                "this program is linked statically and loads no libraries".into(),
            ));
        }
        let mut cause = String::new();
        for name in names {
            let Ok(file) = CString::new(*name) else { continue };
            // SAFETY: the name is a string; the library's constructors are trusted as the system's are.
            let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
            if !handle.is_null() {
                return Ok(Self { handle, name: (*name).into() });
            }
            // SAFETY: `dlerror` gives null or a string that lives until the thread's next call of its kind.
            let text = unsafe { libc::dlerror() };
            if !text.is_null() {
                // SAFETY: as above.
                cause = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            }
        }
        Err((names.join(", "), cause))
    }

    pub(super) fn symbol(&self, symbol: &'static str) -> Result<*mut c_void, CudaError> {
        let missing = || CudaError::Symbol { library: self.name.clone(), symbol };
        let name = CString::new(symbol).map_err(|_| missing())?;
        // SAFETY: the handle is a loaded library's, the name a string.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() { Err(missing()) } else { Ok(address) }
    }
}

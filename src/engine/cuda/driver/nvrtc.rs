//! CUDA's run-time compiler.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::library::{Handle, Library, library};
use crate::engine::cuda::CudaError;

/// Names of NVRTC's library: one for each major version since 12, `11.2` for all of 11.2 to 11.8.
const COMPILERS: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so"];

library! {
    /// The compiler.
    Nvrtc {
        version = "nvrtcVersion" (*mut c_int, *mut c_int);
        create = "nvrtcCreateProgram" (
            *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char
        );
        destroy = "nvrtcDestroyProgram" (*mut Handle);
        compile = "nvrtcCompileProgram" (Handle, c_int, *const *const c_char);
        log_size = "nvrtcGetProgramLogSize" (Handle, *mut usize);
        log = "nvrtcGetProgramLog" (Handle, *mut c_char);
        binary_size = "nvrtcGetCUBINSize" (Handle, *mut usize);
        binary = "nvrtcGetCUBIN" (Handle, *mut c_char);
    }
}

/// Compiles a source to machine code of one compute capability.
///
/// # Errors
/// [`CudaError::NoCompiler`], or [`CudaError::Compile`] with NVRTC's words.
pub fn compile(source: &str, capability: u32, options: &[&str]) -> Result<Vec<u8>, CudaError> {
    let library =
        Library::open(COMPILERS).map_err(|(tried, cause)| CudaError::NoCompiler { tried, cause })?;
    let nvrtc = Nvrtc::new(&library)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: pointers to numbers that live.
    unsafe { (nvrtc.version)(&mut major, &mut minor) };
    let architecture = format!("sm_{capability}");
    let fault = |log: String| CudaError::Compile {
        version: format!("{major}.{minor}"),
        architecture: architecture.clone(),
        log: log.trim().replace('\n', "; "),
    };
    let text = |s: &str| CString::new(s).map_err(|e| fault(e.to_string()));
    let (source, name) = (text(source)?, text("ghostlight.cu")?);
    let mut all = vec![text(&format!("--gpu-architecture={architecture}"))?];
    for option in options {
        all.push(text(option)?);
    }
    let pointers: Vec<*const c_char> = all.iter().map(|option| option.as_ptr()).collect();
    let mut program = null_mut();
    // SAFETY: strings and the array of pointers to them live until the end of this function; no headers are given.
    let status = unsafe {
        (nvrtc.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, std::ptr::null(), std::ptr::null())
    };
    if status != 0 {
        return Err(fault(format!("error {status}")));
    }
    // SAFETY: as above; the program is a created one.
    let status = unsafe { (nvrtc.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
    let made = if status == 0 {
        // SAFETY: the program is compiled.
        unsafe { fetch(program, nvrtc.binary_size, nvrtc.binary) }
    } else {
        // SAFETY: the program was compiled, with faults.
        unsafe { fetch(program, nvrtc.log_size, nvrtc.log) }
    };
    // SAFETY: the program is not used after this.
    unsafe { (nvrtc.destroy)(&mut program) };
    match (status, made) {
        (0, Some(binary)) if !binary.is_empty() => Ok(binary),
        (_, text) => {
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).trim_end_matches('\0').to_owned();
            Err(fault(if text.is_empty() { format!("error {status}") } else { text }))
        }
    }
}

/// What a pair of functions gives for a program: how long it is, then its bytes.
///
/// # Safety
/// - The functions are such a pair, and the program is in a state that they take.
unsafe fn fetch(
    program: Handle,
    size: unsafe extern "C" fn(Handle, *mut usize) -> c_int,
    bytes: unsafe extern "C" fn(Handle, *mut c_char) -> c_int,
) -> Option<Vec<u8>> {
    let mut len = 0;
    // SAFETY: the caller's duty.
    if unsafe { size(program, &mut len) } != 0 {
        return None;
    }
    let mut all = vec![0u8; len];
    // SAFETY: the vector is as long as the first function says.
    (unsafe { bytes(program, all.as_mut_ptr().cast()) } == 0).then_some(all)
}

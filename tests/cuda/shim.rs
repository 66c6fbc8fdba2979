//! The kernels as a library for the host: compiled once per test process, and loaded under the names of CUDA's.

use std::ffi::{CString, c_char, c_long, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use ghostlight::kernels::cuda::{Kernel, SOURCES};

/// Functions of the loaded library.
pub struct Shim {
    /// Folder of `libcuda.so.1` and `libnvrtc.so.12`.
    pub folder: PathBuf,
    launch: extern "C" fn(*const c_char, u32, u32, *const [u64; 4], *const u32, usize) -> bool,
    held: extern "C" fn(*mut u64),
    become_one: extern "C" fn(c_long),
}

/// Compute capability of the shim's GPU.
const USUAL: c_long = 87;

/// One at a time: the library has one GPU, and no locks.
static TURN: Mutex<()> = Mutex::new(());

/// The shim, for one test alone; none, with a message, where there is no C++ compiler.
pub fn shim() -> Option<(&'static Shim, MutexGuard<'static, ()>)> {
    static SHIM: OnceLock<Option<Shim>> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match SHIM.get_or_init(build) {
        Some(shim) => Some((shim, turn)),
        None => {
            println!("skipped: no C++ compiler (c++, g++, clang++, or what CXX names)");
            None
        }
    }
}

impl Shim {
    /// Runs a kernel on blocks of host memory: arena, weights, scratch, host.
    pub fn launch(&self, kernel: Kernel, grid: [usize; 2], regions: [&mut [u8]; 4], args: &[u32]) {
        let bases = regions.map(|region| region.as_mut_ptr() as u64);
        let name = CString::new(kernel.symbol()).unwrap();
        let done =
            (self.launch)(name.as_ptr(), grid[0] as u32, grid[1] as u32, &bases, args.as_ptr(), args.len());
        assert!(done, "{kernel:?} takes other arguments");
    }

    /// Runs `work` on a GPU of another compute capability: 72 for 7.2.
    pub fn with_capability(&self, capability: c_long, work: impl FnOnce()) {
        (self.become_one)(capability);
        work();
        (self.become_one)(USUAL);
    }

    /// Bytes, blocks and graphs that were not given back.
    pub fn held(&self) -> [u64; 4] {
        let mut held = [0; 4];
        (self.held)(held.as_mut_ptr());
        held
    }
}

fn compiler() -> Option<String> {
    let named = std::env::var("CXX").ok();
    named
        .into_iter()
        .chain(["c++", "g++", "clang++"].map(String::from))
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

fn build() -> Option<Shim> {
    let compiler = compiler()?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cuda-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // What the program compiles, but for the file that the shim stands for.
    let mut text = format!("#include \"{}\"\n", tests.join("shim.h").display());
    for (name, source) in &SOURCES[1..] {
        text += &format!("#line 1 \"{name}\"\n{source}\n");
    }
    std::fs::write(folder.join("kernels.h"), text).unwrap();
    let object = folder.join("shim.o");
    let run = |args: &mut Command| {
        let output = args.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new(&compiler)
        .args(["-std=c++14", "-O2", "-ffp-contract=off", "-fno-fast-math", "-fPIC", "-Wall", "-Wextra"])
        .args(["-Wno-unknown-pragmas", "-Wno-clobbered", "-Werror", "-U_FORTIFY_SOURCE", "-c", "-o"])
        .arg(&object)
        .arg("-I")
        .arg(&folder)
        .arg(tests.join("driver.cpp")));
    for name in ["libcuda.so.1", "libnvrtc.so.12"] {
        run(Command::new(&compiler)
            .arg("-shared")
            .arg(format!("-Wl,-soname,{name}"))
            .arg("-o")
            .arg(folder.join(name))
            .arg(&object));
    }
    // Loaded once under these names, they are what the engine's own loading finds.
    load(&folder.join("libnvrtc.so.12"));
    let handle = load(&folder.join("libcuda.so.1"));
    let symbol = |name: &str| {
        let name = CString::new(name).unwrap();
        // SAFETY: the handle is a loaded library's, the name a string.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?}");
        address
    };
    // SAFETY: driver.cpp defines functions of these types.
    let (launch, held, become_one) = unsafe {
        (
            std::mem::transmute::<
                *mut c_void,
                extern "C" fn(*const c_char, u32, u32, *const [u64; 4], *const u32, usize) -> bool,
            >(symbol("shim_launch")),
            std::mem::transmute::<*mut c_void, extern "C" fn(*mut u64)>(symbol("shim_held")),
            std::mem::transmute::<*mut c_void, extern "C" fn(c_long)>(symbol("shim_become")),
        )
    };
    Some(Shim { folder, launch, held, become_one })
}

fn load(path: &Path) -> *mut c_void {
    let name = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the library was just built from sources of this repository.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{}", path.display());
    handle
}

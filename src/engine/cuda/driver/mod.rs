//! The only module that talks to CUDA's libraries. They are loaded at run time, so that one program serves machines with
//! and without them.
//!
//! Tables of the few functions that are called, instead of a crate of bindings: error codes stay numbers (a newer driver
//! has codes that an enum of an older header has not, and such an enum would be undefined behaviour), and what a
//! library lacks is an error, not a panic.

mod library;
mod nvrtc;

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

pub use nvrtc::compile;

use super::error::CudaError;
use crate::kernels::cuda::{Kernel, Region};
use library::{Handle, Library, library};

/// Oldest driver that has all functions: CUDA 11.4, JetPack 5.
const OLDEST_DRIVER: c_int = 11_040;
/// Least compute capability: dp4a.
const LEAST_CAPABILITY: (c_int, c_int) = (6, 1);
/// `CUDA_ERROR_OUT_OF_MEMORY`
const OUT_OF_MEMORY: c_int = 2;
/// Names of the driver's library.
const DRIVERS: &[&str] = &["libcuda.so.1", "libcuda.so"];

/// An address on the device.
type Address = u64;

library! {
    /// The driver.
    Driver {
        init = "cuInit" (c_uint);
        version = "cuDriverGetVersion" (*mut c_int);
        error_name = "cuGetErrorName" (c_int, *mut *const c_char);
        device_count = "cuDeviceGetCount" (*mut c_int);
        device = "cuDeviceGet" (*mut c_int, c_int);
        device_name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
        attribute = "cuDeviceGetAttribute" (*mut c_int, c_uint, c_int);
        retain = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
        release = "cuDevicePrimaryCtxRelease_v2" (c_int);
        set_current = "cuCtxSetCurrent" (Handle);
        stream_create = "cuStreamCreate" (*mut Handle, c_uint);
        stream_destroy = "cuStreamDestroy_v2" (Handle);
        synchronize = "cuStreamSynchronize" (Handle);
        alloc = "cuMemAlloc_v2" (*mut Address, usize);
        free = "cuMemFree_v2" (Address);
        set_bytes = "cuMemsetD8_v2" (Address, u8, usize);
        host_alloc = "cuMemHostAlloc" (*mut Handle, usize, c_uint);
        host_address = "cuMemHostGetDevicePointer_v2" (*mut Address, Handle, c_uint);
        host_free = "cuMemFreeHost" (Handle);
        upload = "cuMemcpyHtoD_v2" (Address, *const c_void, usize);
        download = "cuMemcpyDtoH_v2" (*mut c_void, Address, usize);
        module_load = "cuModuleLoadData" (*mut Handle, *const c_void);
        module_unload = "cuModuleUnload" (Handle);
        function = "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        launch = "cuLaunchKernel" (
            Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
        );
        begin_capture = "cuStreamBeginCapture_v2" (Handle, c_uint);
        end_capture = "cuStreamEndCapture" (Handle, *mut Handle);
        instantiate = "cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
        graph_launch = "cuGraphLaunch" (Handle, Handle);
        graph_destroy = "cuGraphDestroy" (Handle);
        exec_destroy = "cuGraphExecDestroy" (Handle);
    }
}

impl Driver {
    /// `Ok` where the driver says so.
    fn check(&self, call: &'static str, status: c_int) -> Result<(), CudaError> {
        if status == 0 { Ok(()) } else { Err(CudaError::Call { call, cause: self.word(status) }) }
    }

    /// The driver's name of an error.
    fn word(&self, status: c_int) -> String {
        let mut name = std::ptr::null();
        // SAFETY: the driver writes null or a string that lives as long as it.
        unsafe { (self.error_name)(status, &mut name) };
        if name.is_null() {
            return format!("error {status}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// One call of a kernel.
#[derive(Debug, Clone)]
pub struct Launch {
    pub(super) kernel: Kernel,
    pub(super) grid: [u32; 2],
    /// The kernel's arguments. Every reference in them is in its region, with all that the kernel reads from there
    /// on: whoever builds a launch checks it.
    pub(super) args: Vec<u32>,
}

/// A block of memory.
#[derive(Debug, Clone, Copy)]
struct Block {
    address: Address,
    /// Where the host sees it; null where it does not.
    host: *mut u8,
    len: usize,
}

const NOTHING: Block = Block { address: 0, host: null_mut(), len: 0 };

/// A GPU with the kernels loaded, four blocks of memory, and a recorded sequence of launches.
#[derive(Debug)]
pub struct Gpu {
    driver: Driver,
    device: c_int,
    context: Handle,
    stream: Handle,
    module: Handle,
    functions: Vec<Handle>,
    blocks: [Block; Region::ALL.len()],
    graph: Handle,
    /// What it is.
    pub info: GpuInfo,
}

/// What a GPU is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its name.
    pub name: String,
    /// Compute capability, `87` for 8.7.
    pub capability: u32,
    /// CUDA version of its driver, `12060` for 12.6.
    pub driver: u32,
}

impl std::fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, capability, driver } = self;
        write!(f, "{name} (sm_{capability}, driver for CUDA {})", cuda_version(*driver as c_int))
    }
}

/// `12060` as `12.6`.
fn cuda_version(number: c_int) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

// SAFETY: handles of the driver may be used from any thread; each method that needs the context makes it current in
// its thread first, and `&mut self` or `&self` with blocking calls keep uses apart.
unsafe impl Send for Gpu {}

impl Gpu {
    /// The first GPU. Kernels are loaded by [`Gpu::load`].
    ///
    /// # Errors
    /// [`CudaError`] that says what is missing.
    pub fn open() -> Result<Self, CudaError> {
        let library =
            Library::open(DRIVERS).map_err(|(tried, cause)| CudaError::NoDriver { tried, cause })?;
        let driver = Driver::new(&library)?;
        let mut version = 0;
        // SAFETY: pointers to a number that lives; neither call needs a context.
        let (status, started) = unsafe { ((driver.version)(&mut version), (driver.init)(0)) };
        driver.check("cuDriverGetVersion", status)?;
        if version < OLDEST_DRIVER {
            return Err(CudaError::OldDriver {
                found: cuda_version(version),
                wanted: cuda_version(OLDEST_DRIVER),
            });
        }
        let no_device = |cause: String| CudaError::NoDevice { cause };
        driver.check("cuInit", started).map_err(|e| no_device(e.to_string()))?;
        let (mut count, mut device) = (0, 0);
        // SAFETY: pointers to numbers that live; the driver is initialised.
        unsafe {
            driver.check("cuDeviceGetCount", (driver.device_count)(&mut count))?;
            if count == 0 {
                return Err(no_device("none".into()));
            }
            driver.check("cuDeviceGet", (driver.device)(&mut device, 0))?;
        }
        let info = info(&driver, device, version)?;
        let (mut context, mut stream) = (null_mut(), null_mut());
        // SAFETY: pointers to handles that live; the device exists.
        unsafe {
            memory(
                &driver,
                "a context",
                0,
                (driver.retain)(&mut context, device),
                "cuDevicePrimaryCtxRetain",
            )?;
        }
        let mut gpu = Self {
            driver,
            device,
            context,
            stream: null_mut(),
            module: null_mut(),
            functions: Vec::new(),
            blocks: [NOTHING; Region::ALL.len()],
            graph: null_mut(),
            info,
        };
        gpu.enter()?;
        // SAFETY: the context is current. 1: not ordered after the default stream.
        gpu.driver.check("cuStreamCreate", unsafe { (gpu.driver.stream_create)(&mut stream, 1) })?;
        gpu.stream = stream;
        Ok(gpu)
    }

    /// Makes the context current in this thread.
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained as long as `self` lives.
        self.driver.check("cuCtxSetCurrent", unsafe { (self.driver.set_current)(self.context) })
    }

    /// Loads the kernels from machine code or PTX.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver refuses them.
    pub fn load(&mut self, binary: &[u8]) -> Result<(), CudaError> {
        self.enter()?;
        // PTX is a string: it ends with a zero.
        let image = [binary, &[0]].concat();
        let mut module = null_mut();
        // SAFETY: the image is one of NVRTC's, whole (its hash was compared) and followed by a zero.
        let status = unsafe { (self.driver.module_load)(&mut module, image.as_ptr().cast()) };
        self.driver.check("cuModuleLoadData", status)?;
        self.module = module;
        self.functions = Vec::with_capacity(Kernel::ALL.len());
        for kernel in Kernel::ALL {
            let mut function = null_mut();
            let name = CString::new(kernel.symbol())
                .map_err(|_| CudaError::Call { call: "cuModuleGetFunction", cause: "name".into() })?;
            // SAFETY: the module is loaded, the name a string.
            let status = unsafe { (self.driver.function)(&mut function, module, name.as_ptr()) };
            self.driver.check("cuModuleGetFunction", status)?;
            self.functions.push(function);
        }
        Ok(())
    }

    /// Makes a region `len` bytes long, zeroed; what was in it is lost, and so is what was recorded.
    ///
    /// # Errors
    /// [`CudaError::Memory`] where there is not so much; the region is empty then.
    pub fn reserve(&mut self, region: Region, len: usize) -> Result<(), CudaError> {
        self.enter()?;
        self.forget_graph();
        self.free(region);
        let what = match region {
            Region::Arena => "activations",
            Region::Weights => "weights",
            Region::Scratch => "intermediate results",
            Region::Host => "pictures",
        };
        if len > Region::LIMIT {
            return Err(CudaError::TooLarge { what, bytes: len, limit: Region::LIMIT });
        }
        let bytes = len.max(64);
        let mut block = NOTHING;
        if region == Region::Host {
            let mut host = null_mut();
            // SAFETY: the context is current. 2: the device sees it.
            let status = unsafe { (self.driver.host_alloc)(&mut host, bytes, 2) };
            memory(&self.driver, what, bytes, status, "cuMemHostAlloc")?;
            block = Block { host: host.cast(), len, ..block };
            self.blocks[region as usize] = block;
            // SAFETY: the driver just gave `bytes` bytes at `host`, which nothing uses yet.
            let status = unsafe {
                std::ptr::write_bytes(block.host, 0, bytes);
                (self.driver.host_address)(&mut block.address, host, 0)
            };
            self.driver.check("cuMemHostGetDevicePointer", status)?;
        } else {
            // SAFETY: the context is current.
            let status = unsafe { (self.driver.alloc)(&mut block.address, bytes) };
            memory(&self.driver, what, bytes, status, "cuMemAlloc")?;
            block.len = len;
            self.blocks[region as usize] = block;
            // SAFETY: the driver just gave `bytes` bytes there.
            let status = unsafe { (self.driver.set_bytes)(block.address, 0, bytes) };
            self.driver.check("cuMemsetD8", status)?;
        }
        self.blocks[region as usize] = block;
        Ok(())
    }

    /// Bytes of a region.
    pub fn len(&self, region: Region) -> usize {
        self.blocks[region as usize].len
    }

    /// Copies bytes to the start of a region.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver refuses.
    ///
    /// # Panics
    /// If they are more than it holds.
    pub fn upload(&mut self, region: Region, bytes: &[u8]) -> Result<(), CudaError> {
        self.enter()?;
        let block = self.blocks[region as usize];
        assert!(bytes.len() <= block.len, "{region:?} holds {} bytes", block.len);
        // SAFETY: the block is that long and no launch runs: `run` waits for its end.
        let status = unsafe { (self.driver.upload)(block.address, bytes.as_ptr().cast(), bytes.len()) };
        self.driver.check("cuMemcpyHtoD", status)
    }

    /// A region's bytes as they are on the device.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver refuses.
    pub fn download(&self, region: Region) -> Result<Vec<u8>, CudaError> {
        self.enter()?;
        let block = self.blocks[region as usize];
        let mut bytes = vec![0u8; block.len];
        // SAFETY: the block is that long and no launch runs: `run` waits for its end.
        let status = unsafe { (self.driver.download)(bytes.as_mut_ptr().cast(), block.address, block.len) };
        self.driver.check("cuMemcpyDtoH", status)?;
        Ok(bytes)
    }

    /// The region that the host sees.
    pub fn host(&self) -> &[u8] {
        let block = self.blocks[Region::Host as usize];
        if block.host.is_null() {
            return &[];
        }
        // SAFETY: the block is that long, zeroed at first, and written by the device only within `run`, which
        // borrows `self` exclusively.
        unsafe { std::slice::from_raw_parts(block.host, block.len) }
    }

    /// The region that the host sees.
    pub fn host_mut(&mut self) -> &mut [u8] {
        let block = self.blocks[Region::Host as usize];
        if block.host.is_null() {
            return &mut [];
        }
        // SAFETY: as in `host`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(block.host, block.len) }
    }

    /// Records launches for [`Gpu::run`], as one graph.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver refuses one.
    pub fn record(&mut self, launches: &[Launch]) -> Result<(), CudaError> {
        self.enter()?;
        self.forget_graph();
        // SAFETY: the stream lives. 1: other threads may go on calling the driver.
        let status = unsafe { (self.driver.begin_capture)(self.stream, 1) };
        self.driver.check("cuStreamBeginCapture", status)?;
        let launched = launches.iter().try_for_each(|launch| self.launch(launch));
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: the stream is being captured.
        let status = unsafe { (self.driver.end_capture)(self.stream, &mut graph) };
        launched?;
        self.driver.check("cuStreamEndCapture", status)?;
        // SAFETY: the graph was just made, and is not used after its end.
        let status = unsafe {
            let status = (self.driver.instantiate)(&mut exec, graph, 0);
            (self.driver.graph_destroy)(graph);
            status
        };
        memory(&self.driver, "the recorded launches", 0, status, "cuGraphInstantiateWithFlags")?;
        self.graph = exec;
        Ok(())
    }

    fn launch(&self, launch: &Launch) -> Result<(), CudaError> {
        let bases = self.blocks.map(|block| block.address);
        let Launch { kernel, grid, args } = launch;
        assert_eq!(args.len(), kernel.words(), "{kernel:?}");
        let mut parameters: [*mut c_void; 2] =
            [bases.as_ptr().cast_mut().cast(), args.as_ptr().cast_mut().cast()];
        // SAFETY: the kernel takes these two parameters, of these sizes, and the driver copies them; references in
        // the arguments are in their regions, as `Launch` demands.
        let status = unsafe {
            (self.driver.launch)(
                self.functions[*kernel as usize],
                grid[0],
                grid[1],
                1,
                kernel.threads(),
                1,
                1,
                0,
                self.stream,
                parameters.as_mut_ptr(),
                null_mut(),
            )
        };
        self.driver.check("cuLaunchKernel", status)
    }

    /// Runs what was recorded, and waits for its end.
    ///
    /// # Errors
    /// [`CudaError::Call`] where the driver tells of a fault.
    pub fn run(&mut self) -> Result<(), CudaError> {
        self.enter()?;
        if self.graph.is_null() {
            return Err(CudaError::Call { call: "cuGraphLaunch", cause: "nothing is recorded".into() });
        }
        // SAFETY: the graph was instantiated in this context, and its memory is still there:
        // `reserve` forgets it.
        let status = unsafe { (self.driver.graph_launch)(self.graph, self.stream) };
        self.driver.check("cuGraphLaunch", status)?;
        // SAFETY: the stream lives.
        self.driver.check("cuStreamSynchronize", unsafe { (self.driver.synchronize)(self.stream) })
    }

    fn forget_graph(&mut self) {
        if !self.graph.is_null() {
            // SAFETY: the graph was instantiated and does not run.
            unsafe { (self.driver.exec_destroy)(self.graph) };
            self.graph = null_mut();
        }
    }

    fn free(&mut self, region: Region) {
        let block = std::mem::replace(&mut self.blocks[region as usize], NOTHING);
        // SAFETY: what the driver gave is given back once, and no launch runs.
        unsafe {
            if !block.host.is_null() {
                (self.driver.host_free)(block.host.cast());
            } else if block.address != 0 {
                (self.driver.free)(block.address);
            }
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            self.forget_graph();
            Region::ALL.into_iter().for_each(|region| self.free(region));
            // SAFETY: what the driver gave is given back once, after all that uses it.
            unsafe {
                if !self.module.is_null() {
                    (self.driver.module_unload)(self.module);
                }
                if !self.stream.is_null() {
                    (self.driver.stream_destroy)(self.stream);
                }
            }
        }
        // SAFETY: the context was retained once.
        unsafe { (self.driver.release)(self.device) };
    }
}

/// `Ok`, or that memory is out.
fn memory(
    driver: &Driver,
    what: &'static str,
    bytes: usize,
    status: c_int,
    call: &'static str,
) -> Result<(), CudaError> {
    if status == OUT_OF_MEMORY { Err(CudaError::Memory { what, bytes }) } else { driver.check(call, status) }
}

/// What a device is; an error where it cannot serve.
fn info(driver: &Driver, device: c_int, version: c_int) -> Result<GpuInfo, CudaError> {
    let mut name = [0 as c_char; 128];
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the device exists; the name's room is told, and ends with a zero that the driver does not overwrite.
    unsafe {
        driver.check("cuDeviceGetName", (driver.device_name)(name.as_mut_ptr(), 127, device))?;
        // 75 and 76: the parts of the compute capability.
        driver.check("cuDeviceGetAttribute", (driver.attribute)(&mut major, 75, device))?;
        driver.check("cuDeviceGetAttribute", (driver.attribute)(&mut minor, 76, device))?;
    }
    // SAFETY: the array ends with a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    if (major, minor) < LEAST_CAPABILITY {
        let text = |(major, minor)| format!("{major}.{minor}");
        return Err(CudaError::Capability {
            name,
            found: text((major, minor)),
            wanted: text(LEAST_CAPABILITY),
        });
    }
    Ok(GpuInfo { name, capability: (10 * major + minor) as u32, driver: version as u32 })
}

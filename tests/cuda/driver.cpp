// A driver and a compiler of their own: what of CUDA's libraries the engine calls, on the shim. So the engine's own
// calls run too, from the first to the last, with memory that a sanitizer can watch.
//
// Faults are asked for by the environment: FAKE_CUDA_VERSION, FAKE_CUDA_DEVICES, FAKE_CUDA_CAPABILITY (10 * major +
// minor), FAKE_CUDA_MEMORY (bytes that there are), FAKE_NVRTC_FAULT (words of the compiler). FAKE_NVRTC_COUNT names a
// file that gets a line for each compilation.

#include "kernels.h"

typedef void *Handle;
typedef u64 Address;

enum { OUT_OF_MEMORY = 2, INVALID = 1, NO_DEVICE = 100, INVALID_IMAGE = 200, INVALID_HANDLE = 400 };

static const char IMAGE[] = "machine code of the shim";

/// Compute capability where the environment names none.
static long usual_capability = 87;

static long variable(const char *name, long otherwise) {
    const char *text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

struct Launch {
    const shim::Kernel *kernel;
    u32 width, height;
    std::vector<char> bases, args;
};

typedef std::vector<Launch> Graph;

static Graph *capturing;
static bool initialised, current;
static size_t allocated;
static std::map<void *, size_t> blocks;
static long graphs, executables;

static int take(void **out, size_t bytes) {
    if (!current) return INVALID;
    if (allocated + bytes > (size_t)variable("FAKE_CUDA_MEMORY", 4l << 30)) return OUT_OF_MEMORY;
    // Noise: nobody may count on zeros.
    *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(*out, 0xa5, bytes);
    blocks[*out] = bytes;
    allocated += bytes;
    return 0;
}

static int give(void *block) {
    auto found = blocks.find(block);
    if (found == blocks.end()) return INVALID;
    allocated -= found->second;
    blocks.erase(found);
    std::free(block);
    return 0;
}

extern "C" {

int cuInit(unsigned) {
    initialised = true;
    return variable("FAKE_CUDA_DEVICES", 1) < 0 ? NO_DEVICE : 0;
}
int cuDriverGetVersion(int *version) {
    *version = (int)variable("FAKE_CUDA_VERSION", 12060);
    return 0;
}
int cuGetErrorName(int error, const char **name) {
    *name = error == NO_DEVICE       ? "CUDA_ERROR_NO_DEVICE"
            : error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE"
                                     : nullptr;
    return *name ? 0 : INVALID;
}
int cuDeviceGetCount(int *count) {
    *count = (int)variable("FAKE_CUDA_DEVICES", 1);
    return initialised ? 0 : INVALID;
}
int cuDeviceGet(int *device, int ordinal) {
    *device = 7;
    return ordinal == 0 ? 0 : INVALID;
}
int cuDeviceGetName(char *name, int room, int device) {
    std::snprintf(name, (size_t)room, "Shim");
    return device == 7 ? 0 : INVALID;
}
int cuDeviceGetAttribute(int *value, unsigned attribute, int device) {
    long capability = variable("FAKE_CUDA_CAPABILITY", usual_capability);
    if (device != 7 || (attribute != 75 && attribute != 76)) return INVALID;
    *value = (int)(attribute == 75 ? capability / 10 : capability % 10);
    return 0;
}
int cuDevicePrimaryCtxRetain(Handle *context, int device) {
    *context = &initialised;
    return device == 7 ? 0 : INVALID;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return device == 7 ? 0 : INVALID; }
int cuCtxSetCurrent(Handle context) {
    current = context == &initialised;
    return current ? 0 : INVALID;
}
int cuStreamCreate(Handle *stream, unsigned flags) {
    *stream = &current;
    return current && flags == 1 ? 0 : INVALID;
}
int cuStreamDestroy_v2(Handle stream) { return stream == &current ? 0 : INVALID; }
int cuStreamSynchronize(Handle stream) { return stream == &current ? 0 : INVALID; }
int cuMemAlloc_v2(Address *address, size_t bytes) { return take((void **)address, bytes); }
int cuMemFree_v2(Address address) { return give((void *)address); }
int cuMemsetD8_v2(Address address, u8 value, size_t bytes) {
    std::memset((void *)address, value, bytes);
    return 0;
}
int cuMemHostAlloc(Handle *host, size_t bytes, unsigned flags) { return flags == 2 ? take(host, bytes) : INVALID; }
int cuMemHostGetDevicePointer_v2(Address *address, Handle host, unsigned) {
    *address = (Address)host;
    return 0;
}
int cuMemFreeHost(Handle host) { return give(host); }
int cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) {
    std::memcpy((void *)to, from, bytes);
    return 0;
}
int cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
    std::memcpy(to, (const void *)from, bytes);
    return 0;
}
int cuModuleLoadData(Handle *module, const void *image) {
    *module = (Handle)IMAGE;
    return std::strcmp((const char *)image, IMAGE) == 0 ? 0 : INVALID_IMAGE;
}
int cuModuleUnload(Handle module) { return module == IMAGE ? 0 : INVALID; }
int cuModuleGetFunction(Handle *function, Handle module, const char *name) {
    auto found = shim::kernels().find(name);
    if (module != IMAGE || found == shim::kernels().end()) return INVALID;
    *function = &found->second;
    return 0;
}
int cuLaunchKernel(Handle function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared, Handle stream, void **parameters, void **) {
    const shim::Kernel *kernel = (const shim::Kernel *)function;
    // On a GPU that lacks their instructions these stop with a fault.
    long capability = variable("FAKE_CUDA_CAPABILITY", usual_capability);
    if (kernel->begins("square_") && capability < 72) return INVALID;
    if (kernel->begins("tensor_") && capability < 80) return INVALID;
    if (!capturing || stream != &current || z != 1 || shared || !x || !y || threads != kernel->threads) return INVALID;
    const char *bases = (const char *)parameters[0], *args = (const char *)parameters[1];
    capturing->push_back({kernel, x, y, {bases, bases + sizeof(Bases)}, {args, args + kernel->args}});
    return 0;
}
int cuStreamBeginCapture_v2(Handle stream, unsigned mode) {
    if (capturing || stream != &current || mode != 1) return INVALID;
    capturing = new Graph;
    return 0;
}
int cuStreamEndCapture(Handle stream, Handle *graph) {
    if (!capturing || stream != &current) return INVALID;
    *graph = capturing;
    capturing = nullptr;
    graphs++;
    return 0;
}
int cuGraphInstantiateWithFlags(Handle *executable, Handle graph, u64 flags) {
    *executable = new Graph(*(Graph *)graph);
    executables++;
    return flags == 0 ? 0 : INVALID;
}
int cuGraphLaunch(Handle executable, Handle stream) {
    if (!executable || stream != &current) return INVALID_HANDLE;
    for (const Launch &l : *(Graph *)executable) shim::launch(*l.kernel, l.width, l.height, l.bases.data(), l.args.data());
    return 0;
}
int cuGraphDestroy(Handle graph) {
    delete (Graph *)graph;
    graphs--;
    return 0;
}
int cuGraphExecDestroy(Handle executable) {
    delete (Graph *)executable;
    executables--;
    return 0;
}

/// What the engine has not given back: bytes, blocks, graphs of both kinds.
void shim_held(u64 *held) {
    held[0] = allocated;
    held[1] = blocks.size();
    held[2] = (u64)graphs;
    held[3] = (u64)executables;
}

/// What the GPU is from now on.
void shim_become(long capability) { usual_capability = capability; }

/// Runs one kernel; false where there is none of that name with so many words of arguments.
bool shim_launch(const char *name, u32 width, u32 height, const void *bases, const u32 *args, size_t words) {
    auto found = shim::kernels().find(name);
    if (found == shim::kernels().end() || found->second.args != 4 * words) return false;
    shim::launch(found->second, width, height, bases, args);
    return true;
}

int nvrtcVersion(int *major, int *minor) {
    *major = 12;
    *minor = 6;
    return 0;
}
int nvrtcCreateProgram(Handle *program, const char *source, const char *, int, const char *const *, const char *const *) {
    *program = new std::string(source);
    return 0;
}
int nvrtcDestroyProgram(Handle *program) {
    delete (std::string *)*program;
    *program = nullptr;
    return 0;
}
int nvrtcCompileProgram(Handle program, int count, const char *const *options) {
    if (const char *path = std::getenv("FAKE_NVRTC_COUNT")) {
        FILE *file = std::fopen(path, "a");
        std::fprintf(file, "%s\n", options[0]);
        std::fclose(file);
    }
    const std::string &source = *(std::string *)program;
    bool exact = false;
    for (int i = 0; i < count; i++) exact |= std::strcmp(options[i], "--fmad=false") == 0;
    return std::getenv("FAKE_NVRTC_FAULT") || !exact || source.find("KERNEL(conv_64x64") == std::string::npos ? 6 : 0;
}
int nvrtcGetProgramLogSize(Handle, size_t *size) {
    const char *fault = std::getenv("FAKE_NVRTC_FAULT");
    *size = fault ? std::strlen(fault) + 1 : 1;
    return 0;
}
int nvrtcGetProgramLog(Handle, char *log) {
    const char *fault = std::getenv("FAKE_NVRTC_FAULT");
    std::strcpy(log, fault ? fault : "");
    return 0;
}
int nvrtcGetCUBINSize(Handle, size_t *size) {
    *size = sizeof(IMAGE);
    return 0;
}
int nvrtcGetCUBIN(Handle, char *out) {
    std::memcpy(out, IMAGE, sizeof(IMAGE));
    return 0;
}
}

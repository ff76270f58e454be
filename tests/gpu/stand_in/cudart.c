/* A CUDA runtime without a GPU: device memory is host memory, kernels do nothing, and graphs are empty.
 *
 * It keeps CUDA's rule that while a stream is captured in the global mode, no thread may allocate memory or wait for the
 * device: such a call fails, and voids the capture. The functions `stand_in_*` are read by the tests.
 *
 * STAND_IN_CAPTURE_MS: milliseconds that a capture takes.
 * STAND_IN_BROKEN_FILE: while this file exists, the device answers every call with an illegal address.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ILLEGAL_ADDRESS 700
#define CAPTURE_UNSUPPORTED 900
#define CAPTURE_INVALIDATED 901
#define MOST_EVENTS 100000

static atomic_int captures_open, capture_void, forbidden_calls, broken;
static _Thread_local int capturing;
static atomic_int event_count;
static struct { int kind; long thread; } events[MOST_EVENTS];

enum { CAPTURE = 1, LAUNCH_GRAPH = 2, COPY_TO_HOST = 3 };
/* cudaMemcpyDeviceToHost */
#define TO_HOST 2

static void note(int kind) {
    int index = atomic_fetch_add(&event_count, 1);
    if (index < MOST_EVENTS) { events[index].kind = kind; events[index].thread = syscall(SYS_gettid); }
}

/* The number of events; `kind` and `thread` of one of them. */
int stand_in_events(void) { return event_count < MOST_EVENTS ? event_count : MOST_EVENTS; }
int stand_in_event_kind(int index) { return events[index].kind; }
long stand_in_event_thread(int index) { return events[index].thread; }
/* Calls that CUDA forbids while a capture is open. */
int stand_in_forbidden_calls(void) { return forbidden_calls; }
/* From now on the device answers every call with `error`, as after a fault: 0 is none. */
void stand_in_break(int error) { broken = error; }

static int device_error(void) {
    const char *file = getenv("STAND_IN_BROKEN_FILE");
    return file && access(file, F_OK) == 0 ? ILLEGAL_ADDRESS : broken;
}

static int forbidden(void) {
    if (!captures_open) return device_error();
    capture_void = 1;
    forbidden_calls++;
    return CAPTURE_UNSUPPORTED;
}

static int milliseconds(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }

static int allocate(void **pointer, size_t size) {
    *pointer = aligned_alloc(256, (size + 511) / 256 * 256);
    memset(*pointer, 0, size);
    return 0;
}

int cudaMalloc(void **p, size_t n) { int error = forbidden(); return error ? error : allocate(p, n); }
int cudaMallocHost(void **p, size_t n) { return cudaMalloc(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return cudaMalloc(p, n); }
int cudaMallocFromPoolAsync(void **p, size_t n, void *pool, void *stream) { return allocate(p, n); }
int cudaFree(void *p) { int error = forbidden(); free(p); return error == CAPTURE_UNSUPPORTED ? error : 0; }
int cudaFreeHost(void *p) { return cudaFree(p); }
int cudaFreeAsync(void *p, void *stream) { free(p); return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) {
    int error = forbidden();
    if (kind == TO_HOST) note(COPY_TO_HOST);
    if (!error) memcpy(to, from, n);
    return error;
}
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) {
    if (kind == TO_HOST) note(COPY_TO_HOST);
    memcpy(to, from, n);
    return device_error();
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height) {
    for (size_t row = 0; row < height; row++)
        memcpy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return device_error();
}
int cudaMemset(void *p, int value, size_t n) { memset(p, value, n); return device_error(); }
int cudaMemsetAsync(void *p, int value, size_t n, void *stream) { memset(p, value, n); return device_error(); }
int cudaMemGetInfo(size_t *free_bytes, size_t *total) { *free_bytes = *total = (size_t)140 << 30; return 0; }

int cudaStreamSynchronize(void *stream) { return forbidden(); }
int cudaDeviceSynchronize(void) { return forbidden(); }
int cudaLaunchKernel(const void *function) { return device_error(); }
int __cudaLaunchKernel(void *function) { return device_error(); }
int cudaLaunchKernelExC(const void *config, const void *function, void **arguments) { return device_error(); }
int cudaLaunchCooperativeKernel(const void *function) { return device_error(); }

static atomic_long handles = 0x1000;
static int handle(void **out) { *out = (void *)(handles += 16); return 0; }
int cudaStreamCreate(void **stream) { return handle(stream); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return handle(stream); }
int cudaEventCreate(void **event) { return handle(event); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return handle(event); }
int cudaEventElapsedTime(float *ms, void *start, void *end) { *ms = 1; return 0; }

int cudaStreamBeginCapture(void *stream, int mode) {
    note(CAPTURE);
    capturing = 1;
    captures_open++;
    capture_void = 0;
    return 0;
}
int cudaStreamEndCapture(void *stream, void **graph) {
    usleep(1000 * milliseconds("STAND_IN_CAPTURE_MS"));
    capturing = 0;
    captures_open--;
    *graph = (void *)1;
    return capture_void ? CAPTURE_INVALIDATED : 0;
}
int cudaStreamIsCapturing(void *stream, int *status) { *status = capturing; return 0; }
int cudaGraphInstantiate(void **executable, void *graph, unsigned long long flags) { return handle(executable); }
int cudaGraphLaunch(void *executable, void *stream) { note(LAUNCH_GRAPH); return device_error(); }

int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : 1024;
    return 0;
}
/* The beginning of CUDA 13's cudaDeviceProp. */
struct properties {
    char name[256], uuid[16], luid[8];
    unsigned node_mask;
    size_t memory, shared_memory;
    int registers, warp_size;
    size_t pitch;
    int block_threads, block[3], grid[3];
    size_t constants;
    int major, minor;
};
int cudaGetDeviceProperties(struct properties *p, int device) {
    memset(p, 0, 900);
    struct properties known = {
        .name = "Stand-in GPU", .memory = (size_t)140 << 30, .shared_memory = 49152, .registers = 65536,
        .warp_size = 32, .pitch = 2147483647, .block_threads = 1024, .block = {1024, 1024, 64},
        .grid = {2147483647, 65535, 65535}, .constants = 65536, .major = 9};
    memcpy(p, &known, sizeof known);
    return 0;
}
int cudaPointerGetAttributes(void *attributes, const void *p) { memset(attributes, 0, 32); return 0; }
int cudaFuncGetAttributes(void *attributes, const void *function) { memset(attributes, 0, 64); return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks) { *blocks = 1; return 0; }
int cudaPeekAtLastError(void) { return device_error(); }
int cudaGetLastError(void) { return device_error(); }
const char *cudaGetErrorString(int error) { return "an error of the stand-in"; }
const char *cudaGetErrorName(int error) { return "cudaErrorOfTheStandIn"; }

void **__cudaRegisterFatBinary(void *binary) { static void *one[1]; return one; }
int __cudaPopCallConfiguration(void *grid, void *block, void *shared, void *stream) { memset(grid, 0, 12); memset(block, 0, 12); return 0; }
int __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }

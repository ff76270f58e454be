/* cuDNN without a GPU: plans can be built and executed, and compute nothing.
 *
 * STAND_IN_REFUSE_PLANS: if set, no plan can be built, as with libraries of versions that do not fit together.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

/* Values of cudnn_graph.h. */
enum { EXECUTION_PLAN = 5 };
enum { ENGINE_HEURISTIC_RESULTS = 202, PLAN_HANDLE_AND_CONFIG = 300, PLAN_WORKSPACE = 303, PLAN_NOTES = 304,
       ENGINE_CONFIG_WORKSPACE = 402, DEVICE_WORKSPACE = 1301 };

static atomic_int plans;
static char weights[1 << 22];

/* The number of plans built. */
int stand_in_plans(void) { return plans; }

static int refusing(void) { return getenv("STAND_IN_REFUSE_PLANS") != NULL; }

int cudnnBackendCreateDescriptor(int type, void **descriptor) {
    if (refusing()) return 0;
    int *content = calloc(1, 4096);
    content[0] = type;
    *descriptor = content;
    return 0;
}
int cudnnBackendFinalize(void *descriptor) {
    if (!refusing() && *(int *)descriptor == EXECUTION_PLAN) plans++;
    return 0;
}
int cudnnBackendGetAttribute(void *descriptor, int name, int type, long long requested, long long *count, void *value) {
    if (refusing()) return 0;
    if (count) *count = 0;
    switch (name) {
    case PLAN_NOTES: if (value) *(int *)value = 0; /* fall through */
    case ENGINE_HEURISTIC_RESULTS:
    case PLAN_HANDLE_AND_CONFIG: if (count) *count = 1; break;
    case ENGINE_CONFIG_WORKSPACE:
    case DEVICE_WORKSPACE:
    case PLAN_WORKSPACE:
        if (count) *count = 1;
        if (value && requested >= 1) *(long long *)value = 0;
    }
    return 0;
}
int cudnnGetStream(void *handle, void **stream) { *stream = (void *)0x1010; return 0; }

static int create(void **handle) { *handle = (void *)1; return 0; }
int cudnnCreate(void **h) { return create(h); }
int cudnnCreateActivationDescriptor(void **h) { return create(h); }
int cudnnCreateConvolutionDescriptor(void **h) { return create(h); }
int cudnnCreateDropoutDescriptor(void **h) { return create(h); }
int cudnnCreateFilterDescriptor(void **h) { return create(h); }
int cudnnCreateLRNDescriptor(void **h) { return create(h); }
int cudnnCreatePoolingDescriptor(void **h) { return create(h); }
int cudnnCreateRNNDataDescriptor(void **h) { return create(h); }
int cudnnCreateRNNDescriptor(void **h) { return create(h); }
int cudnnCreateReduceTensorDescriptor(void **h) { return create(h); }
int cudnnCreateTensorDescriptor(void **h) { return create(h); }

const char *cudnnGetErrorString(int status) { return "an error of the stand-in"; }
size_t cudnnGetVersion(void) { return 92000; }
size_t cudnnGetCudartVersion(void) { return 13000; }
int cudnnGetRNNWeightSpaceSize(void *h, void *rnn, size_t *size) { *size = 1 << 20; return 0; }
int cudnnDropoutGetStatesSize(void *h, size_t *size) { *size = 1024; return 0; }
int cudnnGetRNNTempSpaceSizes(void *h, void *rnn, int mode, void *data, size_t *work, size_t *reserve) {
    *work = 1024;
    if (reserve) *reserve = 1024;
    return 0;
}
int cudnnGetRNNWeightParams(void *h, void *rnn, int layer, size_t size, const void *space, int id, void *matrix_shape,
                            void **matrix, void *bias_shape, void **bias) {
    if (matrix) *matrix = weights;
    if (bias) *bias = weights;
    return 0;
}
int cudnnGetTensorNdDescriptor(void *d, int most, int *type, int *axes, int *shape, int *strides) {
    *type = 0;
    *axes = 3;
    for (int axis = 0; axis < most && axis < 3; axis++) shape[axis] = strides[axis] = 1;
    return 0;
}

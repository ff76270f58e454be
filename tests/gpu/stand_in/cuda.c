/* NVIDIA's driver without a GPU.
 *
 * STAND_IN_DRIVER: the CUDA version that it supports, 13000 by default. STAND_IN_CAPABILITY: the compute capability of the
 * GPU times ten, 90 by default. STAND_IN_DEVICES: the number of GPUs, 1 by default.
 */
#include <stdlib.h>
#include <string.h>

static int setting(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

int cuInit(unsigned flags) { return setting("STAND_IN_DEVICES", 1) ? 0 : 100; }
int cuDriverGetVersion(int *version) { *version = setting("STAND_IN_DRIVER", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = setting("STAND_IN_DEVICES", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stand-in GPU", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = setting("STAND_IN_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : capability % 10;
    return 0;
}

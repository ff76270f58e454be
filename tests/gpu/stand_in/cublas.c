/* cuBLAS without a GPU: handles, and products that compute nothing. */
int cublasCreate_v2(void **handle) { *handle = (void *)1; return 0; }
const char *cublasGetStatusName(int status) { return "CUBLAS_STATUS_OF_THE_STAND_IN"; }
const char *cublasGetStatusString(int status) { return "an error of the stand-in"; }

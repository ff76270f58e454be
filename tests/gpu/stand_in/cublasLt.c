/* cuBLASLt without a GPU. */
int cublasLtCreate(void **handle) { *handle = (void *)1; return 0; }

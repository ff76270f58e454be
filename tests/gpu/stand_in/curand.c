/* cuRAND without a GPU: none of its functions is called. */
int stand_in_curand;

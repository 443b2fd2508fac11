#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("Hello from Kiln, user %d\n", (int)getuid());
    return 0;
}

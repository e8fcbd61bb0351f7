/* What an enemy needs and a shell does not have: directories one in the other without end, and the keys of the kernel. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SESSION (-3) /* KEY_SPEC_SESSION_KEYRING */
#define SEARCH 10    /* KEYCTL_SEARCH */
#define JOIN 1       /* KEYCTL_JOIN_SESSION_KEYRING */

int main(int count, char **words)
{
    const char *verb = count > 1 ? words[1] : "";
    if (!strcmp(verb, "nest") && count == 4) { /* FOLDER LEVELS */
        if (chdir(words[2]))
            return 1;
        for (int level = atoi(words[3]); level > 0; level--)
            if (mkdir("d", 0755) || chdir("d"))
                return 1;
        return 0;
    }
    if (!strcmp(verb, "with-key") && count > 2) { /* COMMAND: beside a key that it shares */
        if (syscall(SYS_keyctl, JOIN, NULL) < 0)
            return 1;
        if (syscall(SYS_add_key, "user", "coracle-enemy", "secret", 6, SESSION) < 0)
            return 1;
        execvp(words[2], words + 2);
        return 1;
    }
    if (!strcmp(verb, "find-key")) {
        long key = syscall(SYS_keyctl, SEARCH, SESSION, "user", "coracle-enemy", 0);
        puts(key > 0 ? "found" : "none");
        return 0;
    }
    return 2;
}

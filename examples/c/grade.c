/* Grades a float32 swish (beta = 1, silu) against the golden vectors, in C99 with nothing but the standard library.
 *
 *     cc -std=c99 -O2 -o grade grade.c -lm && ./grade swish.float32.tsv 5
 *
 * grades x / (1 + expf(-x)); with -DIN_DOUBLE the same formula in double. Put your own into candidate().
 * docs/vectors.md says what the columns mean. Exit status: 0, within the bound (in ulp); 1, not; 2, wrong usage or file.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float candidate(float x) {
#ifdef IN_DOUBLE
    return x == -INFINITY ? -0.0f : (float)(x / (1 + exp(-(double)x)));
#else
    return x / (1 + expf(-x));
#endif
}

enum { ID, X, BETA, BITS, ULP, FRAC, MAY, COLUMNS };
static const char *const names[COLUMNS] = {"id", "x", "beta", "result.bits", "result.ulp", "result.frac", "may"};

/* Cuts a line at its tabs; returns how many cells there are. */
static int split(char *line, char **cells, int most) {
    int count = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *tab = line; tab && count < most; line = tab + 1) {
        cells[count++] = line;
        tab = strchr(line, '\t');
        if (!tab) break;
        *tab = '\0';
    }
    return count;
}

static float from_bits(const char *hex) {
    uint32_t bits = (uint32_t)strtoul(hex, NULL, 16);
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* An infinity stands for the number that would follow the largest. */
static double place(float number) {
    return isinf(number) ? copysign(ldexp(1, 128), number) : number;
}

/* The error in ulp; INFINITY where the kind is wrong: nan, an infinity, a zero of the wrong sign. */
static double error_of(float got, float rounded, const char *ulp, const char *frac, const char *may) {
    if (strstr(may, "result:any")) return 0;
    if (isnan(rounded) || isnan(got)) return isnan(rounded) && isnan(got) ? 0 : INFINITY;
    if (strcmp(frac, "-") == 0) return got == rounded ? 0 : INFINITY; /* the exact value is infinite */
    int either = strstr(may, "result:zero") != NULL, flush = strstr(may, "result:flush") != NULL;
    if (got == 0 && !either && !signbit(got) != !signbit(rounded)) return INFINITY;
    if (got == 0 && (either || flush) && fabsf(rounded) <= ldexpf(1, -126)) return 0;
    double past = strtod(frac, NULL);
    if (isinf(got) && got == rounded) return fmax(0, got > 0 ? -past : past); /* rounded over the end */
    return fabs(ldexp(place(got) - place(rounded), -atoi(ulp)) - past);
}

int main(int argc, char **argv) {
    FILE *file = argc == 3 ? fopen(argv[1], "r") : NULL;
    if (!file) {
        fprintf(stderr, argc == 3 ? "%s: cannot be read\n" : "usage: grade swish.float32.tsv BOUND\n", argv[argc == 3]);
        return 2;
    }
    static char line[65536];
    char *cells[64];
    int where[COLUMNS], columns = 0;
    long tests = 0, failing = 0;
    double bound = atof(argv[2]), worst = 0;
    char worst_id[16] = "none", worst_x[16] = "";
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') continue;
        int count = split(line, cells, 64);
        if (!columns) { /* the first line names the columns */
            columns = count;
            for (int name = 0; name < COLUMNS; name++) {
                for (where[name] = 0; where[name] < count && strcmp(cells[where[name]], names[name]); where[name]++) {}
                if (where[name] == count) return fprintf(stderr, "%s: no column %s\n", argv[1], names[name]), 2;
            }
            continue;
        }
        if (count != columns) return fprintf(stderr, "%s: a line of %d cells\n", argv[1], count), 2;
        if (strtod(cells[where[BETA]], NULL) != 1) continue;
        float got = candidate(from_bits(cells[where[X]])), rounded = from_bits(cells[where[BITS]]);
        double error = error_of(got, rounded, cells[where[ULP]], cells[where[FRAC]], cells[where[MAY]]);
        tests++;
        if (error > bound) {
            failing++;
            if (failing <= 10) printf("%s  x %s  got %.9g  expected %.9g  error %.6g ulp\n", cells[where[ID]],
                                      cells[where[X]], got, rounded, error);
        }
        if (error >= worst && !isinf(error)) {
            worst = error;
            snprintf(worst_id, sizeof worst_id, "%s", cells[where[ID]]);
            snprintf(worst_x, sizeof worst_x, "%s", cells[where[X]]);
        }
    }
    fclose(file);
    printf("%ld tests, %ld past %g ulp; largest finite error %.6g ulp in %s, x %s\n", tests, failing, bound, worst,
           worst_id, worst_x);
    return tests == 0 ? 2 : failing > 0;
}

/* The plugin as one program: a Python interpreter, linked statically, that holds the modules it needs as frozen
 * bytecode (modules.h, which build.py writes) and looks for nothing on the host. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "modules.h" /* static const struct _frozen modules[] */

static void fail_on(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

int main(int argc, char **argv)
{
    static wchar_t *const nowhere = L"/nonexistent";
    PyPreConfig pre;
    PyConfig config;

    PyPreConfig_InitIsolatedConfig(&pre);
    pre.utf8_mode = 1;
    fail_on(Py_PreInitialize(&pre));

    PyImport_FrozenModules = modules;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1; /* and empty */
    wchar_t **const paths[] = {&config.home, &config.executable, &config.base_executable, &config.prefix,
                               &config.base_prefix, &config.exec_prefix, &config.base_exec_prefix, &config.stdlib_dir};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        fail_on(PyConfig_SetString(&config, paths[i], nowhere));
    fail_on(PyConfig_SetBytesArgv(&config, argc, argv));
    fail_on(Py_InitializeFromConfig(&config));
    PyGC_Disable(); /* it would be over before there is anything to collect */

    PyObject *plugin = PyImport_ImportModule("flannel_cni.plugin");
    PyObject *code = plugin ? PyObject_CallMethod(plugin, "main", NULL) : NULL;
    if (code == NULL) {
        PyErr_Print();
        return 1;
    }
    /* Nothing is left to be written or closed: main() has seen to it. */
    _exit((int)PyLong_AsLong(code));
}

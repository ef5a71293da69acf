<?php
// Follows a service's configuration as long as it runs. While there is none to be had, what was told last stays true.

require __DIR__ . '/app/Config.php';

for (;;) {
    App\Config::watch();
    sleep(1);
}

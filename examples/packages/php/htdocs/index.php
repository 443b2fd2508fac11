<?php
require __DIR__ . '/../greeting.php';
header('Content-Type: text/plain; charset=utf-8');
error_log('greeting ' . ($_GET['name'] ?? 'nobody'));
echo greeting($_GET['name'] ?? 'nobody'), ', at most ', ini_get('memory_limit'), "\n";

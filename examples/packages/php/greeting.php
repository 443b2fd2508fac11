<?php
function greeting(string $name): string
{
    return "Hello from PHP, $name";
}

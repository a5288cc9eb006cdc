"""How good a result is: PSNR, SSIM and QR readings, and the tables and figures that show them."""
